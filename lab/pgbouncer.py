"""PgBouncer in front of a cluster, as one finds it in the field: transaction mode, and few connections to the server.

The program is the system's if there is one on the PATH. Else the Debian package is downloaded with `apt-get` and
unpacked into a temporary folder: nothing is installed, and no rights are needed.

`python -m lab.pgbouncer COMMAND ...` runs a command beside a server: PERDURE_TEST_POSTGRES names the way to it through
PgBouncer, PERDURE_TEST_POSTGRES_DIRECT the straight one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from lab.cluster import LONGEST_WAIT_S, Cluster, end_with_parent, free_port, lesser_user

PACKAGE = "pgbouncer"
LIBRARIES = ("libc-ares", "libcares", "libevent-2")
"""Of its libraries, those that a machine may lack: how the names of their packages begin."""

SETTINGS = {
    "listen_addr": "127.0.0.1", "unix_socket_dir": "", "pool_mode": "transaction", "default_pool_size": "4",
    "max_client_conn": "500", "auth_type": "scram-sha-256", "server_login_retry": "0.2", "log_connections": "0",
    "log_disconnections": "0", "log_stats": "0",
}  # fmt: skip


class NoPgbouncer(RuntimeError):
    """There is none on the PATH, and none could be downloaded."""


class Program:
    """The program: the system's, or one that was downloaded, which `remove` deletes."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        found = shutil.which(PACKAGE, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        self.path = Path(found) if found else self._unpack()

    def _unpack(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-pgbouncer-"))
        self._folder.chmod(0o755)
        try:
            _download(self._folder)
        except (OSError, subprocess.SubprocessError) as error:
            self.remove()
            said = getattr(error, "stderr", None) or str(error)
            raise NoPgbouncer(
                f"there is no {PACKAGE} on the PATH, and none could be downloaded ({said.strip()}). Install it "
                f"(apt-get install {PACKAGE}), or run this where Debian's packages can be reached."
            ) from error
        root = self._folder / "root"
        libraries = ":".join(sorted({str(found.parent) for found in root.rglob("lib*.so*")}))
        program = self._folder / PACKAGE
        program.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{root}/usr/sbin/{PACKAGE}" "$@"\n', encoding="utf-8"
        )
        program.chmod(0o755)
        return program

    def remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _download(folder: Path) -> None:
    """The package and those of its libraries, unpacked into `root`. The lists of packages are fetched if need be."""
    options: list[str] = []
    if _apt("apt-cache", "policy", PACKAGE, cwd=folder).count("\n") < 2:
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        options = ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        _apt("apt-get", *options, "update", cwd=folder)
    listed = _apt("apt-cache", *options, "depends", PACKAGE, cwd=folder)
    needed = [name for line in listed.splitlines() if (name := line.split()[-1]).startswith(LIBRARIES)]
    _apt("apt-get", *options, "-o", "APT::Sandbox::User=", "download", PACKAGE, *needed, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        _apt("dpkg", "-x", str(package), "root", cwd=folder)


def _apt(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=True, timeout=300)  # noqa: S603 - of the system
    return done.stdout


class Pooler:
    """One PgBouncer for one server. It refuses to run as root, so for root it runs as `nobody`."""

    def __init__(self, server_url: str, program: Program, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-pgbouncer-"))
        self._server, self._program = urlsplit(server_url), program
        self._running: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "log"
        self.port = free_port()
        self._as_other = lesser_user()
        users = self.folder / "users"
        users.write_text(f'"{self._server.username}" "{self._server.password}"\n')
        given = {
            **SETTINGS, "listen_port": str(self.port), "auth_file": str(users), "auth_user": self._server.username,
            "admin_users": self._server.username, **(settings or {}),
        }  # fmt: skip
        lines = [
            "[databases]", f"* = host={self._server.hostname} port={self._server.port}", "[pgbouncer]",
            *(f"{name} = {value}" for name, value in given.items()), "",
        ]  # fmt: skip
        self._configuration = self.folder / "pgbouncer.ini"
        self._configuration.write_text("\n".join(lines))
        if self._as_other:
            for path in (self.folder, users, self._configuration):
                shutil.chown(path, "nobody")

    @property
    def url(self) -> str:
        """What the server's URL becomes behind it."""
        login = self._server.netloc.rpartition("@")[0]
        return urlunsplit(self._server._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def start(self) -> None:
        """Launch it and wait until it takes connections. It ends with the thread that starts it: take the main one."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(  # noqa: S603 - PgBouncer
                [str(self._program.path), str(self._configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", preexec_fn=end_with_parent, start_new_session=True, **self._as_other,  # type: ignore[call-overload]  # three options as one
            )  # fmt: skip
        until = time.monotonic() + LONGEST_WAIT_S
        while not _takes_connections(self.port):
            assert self._running.poll() is None, self._log.read_text()[-2_000:]
            assert time.monotonic() < until, "PgBouncer does not take connections"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM and SIGKILL: at once, whoever is connected. SIGINT: once every transaction has ended."""
        running, self._running = self._running, None
        if running is not None:
            running.send_signal(how)
            running.wait(LONGEST_WAIT_S)

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def _takes_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def main(command: Sequence[str]) -> int:
    """Run the command; its exit code."""
    with ExitStack() as to_remove:
        program = Program()
        to_remove.callback(program.remove)
        cluster = Cluster()
        to_remove.callback(cluster.remove)
        pooler = Pooler(cluster.url, program)
        to_remove.callback(pooler.remove)
        cluster.start()
        pooler.start()
        environment = {
            **os.environ, "PERDURE_TEST_POSTGRES": pooler.url, "PERDURE_TEST_POSTGRES_DIRECT": cluster.url,
            "PATH": f"{program.path.parent}:{os.environ.get('PATH', '')}",
        }  # fmt: skip
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - what was asked for


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
