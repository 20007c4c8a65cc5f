"""The entry into the command's own program."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator

from perdure.engines.command.supervisor.wire import Spec

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36


def prctl(option: int, argument: int | bytes) -> bool:
    """Whether prctl(2) did it."""
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):  # no Linux, or a Python without ctypes
        return False


def start_command(spec: Spec, supervisor: int) -> tuple[int, int, int, bytes]:
    """Its pid, its two outputs, and what was in the way: nothing, or `stage errno`."""
    out, out_end = os.pipe()
    errors, errors_end = os.pipe()
    report, report_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        become_command(spec, supervisor, out_end, errors_end, report_end)
    for fd in (out_end, errors_end, report_end):
        os.close(fd)
    trouble = b"".join(iter(lambda: os.read(report, 64), b""))  # the pipe ends when the command has been entered
    os.close(report)
    return pid, out, errors, trouble


def become_command(spec: Spec, supervisor: int, out: int, errors: int, report: int) -> None:
    stage = b"fork"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for fd, its in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (errors, 2)):
            os.dup2(fd, its)
        stage = b"cwd"
        if spec.cwd:
            os.chdir(spec.cwd)
        stage = b"exec"
        execute(spec)
    except Exception as error:
        os.write(report, b"%s %d" % (stage, getattr(error, "errno", None) or 0))
    finally:
        os._exit(127)


def execute(spec: Spec) -> None:
    """As execvpe(3), but a file that is no program is never given to a shell."""
    name = spec.argv[0]
    found: OSError | None = None
    for path in places(name, spec.environment.get(b"PATH", os.fsencode(os.defpath))):
        try:
            os.execve(path, spec.argv, spec.environment)  # noqa: S606 - a shell is what we don't want
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.exists(path):  # it is there, and what it names to run it is not
                found = found or OSError(errno.ENOEXEC, str(error))
        except OSError as error:
            found = found or error
            if error.errno != errno.EACCES:
                break
    raise found or FileNotFoundError(errno.ENOENT, "not found")


def places(name: bytes, path: bytes) -> Iterator[bytes]:
    if b"/" in name:
        yield name
    elif name:
        yield from (os.path.join(folder or b".", name) for folder in path.split(b":"))
