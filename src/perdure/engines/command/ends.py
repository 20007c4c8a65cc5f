"""How a command's end is told: its result, or a failure with a code."""

from __future__ import annotations

import errno
import os
import signal

from perdure.engines.command.link import Broken, Ended, Message, NotStarted
from perdure.engines.command.record import shown
from perdure.engines.command.request import CommandRequest, CommandResult
from perdure.errors import PerdureError

TAIL_LINES = 20

_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_NOT_EXECUTABLE = (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class CommandFailed(PerdureError):
    """A command did not succeed. `code` says how: `exit:3`, `signal:SIGKILL`, `not_found`, … (docs/commands.md)."""

    code: str
    retryable = False

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text, code=code)


def code_of(ended: Ended) -> str:
    match ended.how:
        case "exit":
            return f"exit:{ended.number}"
        case "signal":
            return f"signal:{signal_name(ended.number)}"
        case "left":
            return "unkillable"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal without a name of its own
        return f"SIG{number}"


def result_or_failure(request: CommandRequest, last: Message | None) -> CommandResult:
    """The result of a command that exited with 0. Raises CommandFailed for every other end."""
    program = request.argv[0]
    match last:
        case Ended(how="exit", number=0):
            return CommandResult(
                0, None, last.stdout_lines, last.stdout_bytes, last.stderr_lines, last.stderr_bytes,
                last.stored_lines, last.is_cut or bool(last.bound),
            )  # fmt: skip
        case Ended(how="exit"):
            raise CommandFailed(code_of(last), f"{program!r} exited with {last.number}{said_last(last)}")
        case Ended(how="signal"):
            killed = f"{program!r} was killed by {signal_name(last.number)}"
            raise CommandFailed(code_of(last), killed + said_last(last))
        case Ended():
            raise CommandFailed(code_of(last), f"{program!r} (pid {last.number}) does not end, even by SIGKILL")
        case NotStarted():
            raise not_started(request, last)
        case Broken(story):
            raise CommandFailed("supervisor_lost", f"the supervisor of {program!r} met a bug:\n{story}")
        case _:
            lost = f"the supervisor of {program!r} was killed; how the command ended is not known"
            raise CommandFailed("supervisor_lost", lost)


def not_started(request: CommandRequest, last: NotStarted) -> CommandFailed:
    program, why = request.argv[0], os.strerror(last.errno)
    match last.stage:
        case "cwd" if last.errno in _NOT_FOUND:
            return CommandFailed("cwd_not_found", f"the working directory {request.cwd!r} is not there: {why}")
        case "cwd":
            return CommandFailed("cwd_unusable", f"the working directory {request.cwd!r} can't be entered: {why}")
        case "exec" if last.errno in _NOT_FOUND:
            where = "" if "/" in program else " on the command's PATH"
            return CommandFailed("not_found", f"there is no program {program!r}{where}: {why}")
        case "exec" if last.errno in _NOT_EXECUTABLE:
            hint = ": no permission, no known format, or the interpreter it names is not there"
            return CommandFailed("not_executable", f"{program!r} can't be executed ({why}){hint}")
        case "exec" if last.errno == errno.E2BIG:
            return CommandFailed("too_long", f"the arguments and environment of {program!r} are too long: {why}")
        case _:
            return CommandFailed("not_started", f"{program!r} could not be started: {why}")


def said_last(ended: Ended) -> str:
    """The last lines of its standard error, whatever bounds were reached."""
    lines = ended.tail.rstrip(b"\n").split(b"\n")[-TAIL_LINES:]
    text = "\n".join(shown(line)[0] for line in lines).strip()
    return f":\n{text}" if text else ""
