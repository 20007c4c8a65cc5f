"""The locks of owners, in the folder beside the database.

An owner holds an exclusive flock(2) on its own file, taken before its first claim, and records that file's name and
inode. The kernel drops the lock with the last descriptor of it, however the program ends.

A forked child inherits the lock and keeps it held: its parent's death is then not proven while the child lives. The
supervisors of commands inherit it on purpose: nobody takes over from an owner whose commands still run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from perdure.stores.owners import LockState, OwnerIdentity
from perdure.stores.sqlite.wake import is_stale_socket


class OwnerLock:
    """The lock an owner holds for as long as its program lives."""

    def __init__(self, path: Path, fd: int) -> None:
        self.name = path.name
        self.inode = os.fstat(fd).st_ino
        self.fd = fd
        self._path = path.absolute()
        self._taken_by = os.getpid()

    @classmethod
    def take(cls, folder: Path, incarnation: str) -> OwnerLock:
        """Make the incarnation's lock file (0600) in `folder` (made 0700 if missing) and lock it.

        Raises FileExistsError when the incarnation's file exists (an incarnation is used once), and OSError when the
        file or the lock can't be had.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A sweep may find the file between its making and its locking, and remove it. Then the next name is tried.
        for attempt in range(8):
            digest = hashlib.sha256(f"{attempt}:{incarnation}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
            path = folder / f"{digest}.lock"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if _try_flock(fd, fcntl.LOCK_EX) and _is_same_file(path, fd):
                    return cls(path, fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise BlockingIOError(f"each new lock file in {folder} was removed before it could be locked")

    def release(self) -> None:
        """Remove the file and let the lock go; idempotent. In a forked child only the child's descriptor is closed."""
        fd, self.fd = self.fd, -1
        if fd == -1:
            return
        try:
            # An unlock in a child would be the parent's too: they share one open file description.
            if os.getpid() == self._taken_by:
                with contextlib.suppress(OSError):
                    if _is_same_file(self._path, fd):
                        self._path.unlink()
                with contextlib.suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)


def state_of_lock(folder: Path, owner: OwnerIdentity) -> LockState:
    """Whether the owner's lock, on the very inode that it recorded, is held."""
    if not owner.lock_name or not owner.lock_inode or os.path.basename(owner.lock_name) != owner.lock_name:
        return LockState.UNTESTED
    try:
        fd = _open_for_test(folder / owner.lock_name)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return LockState.UNTESTED
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_ino != owner.lock_inode:
            return LockState.UNTESTED
        return LockState.RELEASED if _try_flock(fd, fcntl.LOCK_SH) else LockState.HELD
    except OSError:
        return LockState.UNTESTED
    finally:
        os.close(fd)


def sweep_dead_files(folder: Path, keep: Collection[str], *, limit: int = 256) -> int:
    """Remove lock files that nobody holds and sockets that nobody has bound; how many were removed, at most `limit`.

    `keep` holds the names of files to leave: the sweeper's own, and those that owner rows still name, as they are
    evidence. Never raises for what others do in the folder at the same time.
    """
    removed = 0
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return 0
    for name in names:
        if removed >= limit:
            break
        if name in keep:
            continue
        if name.endswith(".lock"):
            removed += _remove_free_lock(folder / name)
        elif name.endswith(".sock") and is_stale_socket(folder, name):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)
                removed += 1
    return removed


def _remove_free_lock(path: Path) -> int:
    try:
        fd = _open_for_test(path)
    except OSError:
        return 0
    try:
        # Removed while locked: whoever opened the file before, and locks it after, sees that it is gone.
        if stat.S_ISREG(os.fstat(fd).st_mode) and _try_flock(fd, fcntl.LOCK_EX) and _is_same_file(path, fd):
            path.unlink()
            return 1
    except OSError:
        return 0
    finally:
        os.close(fd)
    return 0


def _open_for_test(path: Path) -> int:
    """O_NONBLOCK, as the open of a FIFO put there would wait for a writer."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _try_flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
