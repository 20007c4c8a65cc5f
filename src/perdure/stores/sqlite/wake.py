"""One-byte hints between operating system processes: something was committed, read.

A hint carries no fact and may be lost: its receiver reads the database, and reads it at a safety interval anyway.
Each owner binds one datagram socket in the folder beside the database, and rings all others after a commit.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path


class WakeSocket:
    """The socket on which one owner receives hints. Only the process that opened it may use it."""

    def __init__(self, path: str, bound: socket.socket) -> None:
        self._path = path
        self._inode = os.lstat(path).st_ino
        self._socket = bound
        self._opened_by = os.getpid()

    @classmethod
    def open(cls, folder: Path, name: str) -> WakeSocket | None:
        """Bind `folder/<name>.sock` (0600, non-blocking, close-on-exec), or return None where that can't be done.

        Never raises. A dead socket of the same name is replaced, a live one is not. `folder` must exist.
        """
        if not name or "/" in name or "\0" in name or not hasattr(socket, "AF_UNIX"):
            return None
        try:
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:
            return None
        try:
            bound.setblocking(False)
            return cls(bind_socket(bound, folder, f"{name}.sock"), bound)
        except (OSError, ValueError):  # ValueError: a name that can't be encoded
            bound.close()
            return None

    def fileno(self) -> int:
        """The descriptor to wait on for reading; -1 once closed."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read the pending hints; whether there was any. Bounded: under a flood the rest stays for the next call."""
        found = False
        for _ in range(1024):
            try:
                self._socket.recv(1)
            except OSError:  # nothing left, or closed
                break
            found = True
        return found

    def close(self) -> None:
        """Close the socket and, in the process that opened it, remove its file. Idempotent."""
        if self._socket.fileno() == -1:
            return
        self._socket.close()
        if os.getpid() == self._opened_by:
            unlink_socket(self._path, self._inode)


class Ringer:
    """Sends hints to every other owner's socket in a folder. For one thread; nothing in it blocks.

    A receiver that never reads (a stopped process) keeps what was sent charged to the sender's buffer (unix(7),
    SO_SNDBUF). So when that budget is used up, the ringer goes on with a new socket: one stuck peer must not cost
    the others their hints.
    """

    def __init__(self, folder: Path, own_name: str) -> None:
        """`own_name` is the name given to `WakeSocket.open`. Raises OSError when no socket can be made."""
        self._folder = os.path.abspath(folder)
        self._own_file = f"{own_name}.sock"
        self._addresses = Addresses(self._folder)
        self._targets: dict[str, str] = {}
        self._listed_mtime_ns = -1
        self._listed_at_s: float | None = None
        self._rings_since_listing = 0
        self._socket = new_sender()

    def ring(self, now_s: float | None = None) -> int:
        """Hint every other owner; how many now have one pending. Never raises for what a peer or the folder does.

        The folder is listed again when its modification time changed, and, as that time is coarser than two
        changes can be, also each second of `now_s` (a monotonic reading) and each hundredth ring.
        """
        if self._socket.fileno() == -1:
            return 0
        self._refresh(now_s)
        gone = [file_name for file_name, address in self._targets.items() if not self._hint(file_name, address)]
        for file_name in gone:
            del self._targets[file_name]
        return len(self._targets)

    def close(self) -> None:
        """Close the sending socket; idempotent. A later ring does nothing."""
        self._socket.close()
        self._addresses.close()
        self._targets.clear()

    def _hint(self, file_name: str, address: str) -> bool:
        """Whether `address` has a hint pending now: sent, or its queue is full of them."""
        try:
            try:
                self._socket.sendto(b"\x01", address)
            except BlockingIOError:
                if not self._is_exhausted():
                    return True
                exhausted, self._socket = self._socket, new_sender()
                exhausted.close()
                self._socket.sendto(b"\x01", address)
        except ConnectionRefusedError:
            unlink_socket(os.path.join(self._folder, file_name))
            return False
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.ENOBUFS)  # ENOBUFS: how macOS says that the queue is full
        return True

    def _is_exhausted(self) -> bool:
        """Whether this socket's own send buffer is used up, as against the receiver's queue."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return not poll.poll(0)

    def _refresh(self, now_s: float | None) -> None:
        try:
            mtime_ns = os.stat(self._folder).st_mtime_ns
            self._rings_since_listing += 1
            if self._is_listing_due(mtime_ns, now_s):
                self._addresses.close()  # the folder may be another one by now
                files = [entry for entry in os.listdir(self._folder) if entry.endswith(".sock")]
                self._targets = {name: self._addresses.of(name) for name in files if name != self._own_file}
                self._listed_mtime_ns, self._listed_at_s, self._rings_since_listing = mtime_ns, now_s, 0
        except OSError:
            self._targets.clear()
            self._listed_mtime_ns = -1

    def _is_listing_due(self, mtime_ns: int, now_s: float | None) -> bool:
        if mtime_ns != self._listed_mtime_ns or self._rings_since_listing >= 100:
            return True
        if now_s is None:
            return False
        return self._listed_at_s is None or not 0 <= now_s - self._listed_at_s < 1


def is_stale_socket(folder: Path, file_name: str) -> bool:
    """Whether `file_name` is certainly a socket file that no process has bound any more."""
    addresses = Addresses(os.path.abspath(folder))
    try:
        # Connecting to a file that is no socket is refused as well: only a socket's refusal tells something.
        if not stat.S_ISSOCK(os.lstat(os.path.join(folder, file_name)).st_mode):
            return False
        with new_sender() as probe:
            probe.connect(addresses.of(file_name))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        addresses.close()
    return False


def sweep_dead_sockets(folder: Path, suffix: str, *, limit: int = 256) -> int:
    """Remove the sockets with this suffix that nobody has bound any more; how many were removed, at most `limit`.

    Never raises for what others do in the folder at the same time, nor for one that isn't there.
    """
    removed = 0
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return 0
    for name in names:
        if removed < limit and name.endswith(suffix) and is_stale_socket(folder, name):
            with suppress(OSError):
                os.unlink(folder / name)
                removed += 1
    return removed


class Addresses:
    """The addresses of the sockets in one folder, however long its path is.

    sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included (unix(7)). A longer path is reached
    through an open descriptor of the folder, on Linux.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1

    def of(self, file_name: str) -> str:
        direct = os.path.join(self._folder, file_name)
        if len(os.fsencode(direct)) < 104:
            return direct
        if self._fd == -1:
            self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{file_name}"

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


def new_sender() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def bind_socket(bound: socket.socket, folder: Path, file_name: str) -> str:
    """Bind in `folder` and return the path; OSError when a live socket has that name.

    bind(2) makes the file a moment before sends to it are accepted, and a ringer removes what refuses it. So the
    socket is bound under a name that nobody rings, and gets its own by a link, which never replaces a live one.
    """
    path = os.path.join(os.path.abspath(folder), file_name)
    unready = f"{path}.new"
    addresses = Addresses(os.path.dirname(path))
    try:
        bound.bind(addresses.of(os.path.basename(unready)))
    finally:
        addresses.close()
    try:
        os.chmod(unready, 0o600)
        try:
            os.link(unready, path)
        except FileExistsError:
            if not is_stale_socket(folder, file_name):
                raise
            os.unlink(path)
            os.link(unready, path)
    finally:
        os.unlink(unready)
    return path


def unlink_socket(path: str, inode: int | None = None) -> None:
    """Remove a socket file (that of `inode`, if given); what is gone or can't be removed is left."""
    try:
        found = os.lstat(path)
        if stat.S_ISSOCK(found.st_mode) and inode in (None, found.st_ino):
            os.unlink(path)
    except OSError:
        return
