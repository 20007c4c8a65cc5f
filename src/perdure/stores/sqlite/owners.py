"""Who an owner is, and proof that one is dead.

An owner holds an exclusive flock(2) on its own file in the folder beside the database, taken before its first claim,
and records that file's name and inode with its pid, start time, pid namespace and boot id. The kernel drops the lock
with the last descriptor of it, however the program ends. Absence of proof is never death: it only means waiting for
the lease to expire.

A forked child inherits the lock and keeps it held: its parent's death is then not proven while the child lives. The
supervisors of commands inherit it on purpose: nobody takes over from an owner whose commands still run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from enum import Enum, auto
from pathlib import Path
from typing import Literal

import msgspec

from perdure.model.leases import DeathProof, Enrolment, Owner
from perdure.model.registration import Definition
from perdure.stores.sqlite.wake import is_stale_socket


class OwnerIdentity(msgspec.Struct, frozen=True):
    """What an owner's row says of the program behind it, and of what it can run (None: it does not say).

    Unknown facts: `boot_id` "unknown-boot", `pid_namespace` "", `pid_start` -1, `lock_name` "" with `lock_inode` 0.
    `pid_start` is in clock ticks since boot (field 22 of proc_pid_stat(5)).
    """

    incarnation: str
    name: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_start: int
    lock_name: str
    lock_inode: int
    definitions: tuple[Definition, ...] | None = None


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


def identify(name: str, incarnation: str, boot_id: str, lock: OwnerLock | None) -> OwnerIdentity:
    """The identity of the running process as owner `name`; `incarnation` is a random token, used for one owner only."""
    pid = os.getpid()
    return OwnerIdentity(
        incarnation=incarnation,
        name=name,
        host=os.uname().nodename,
        boot_id=boot_id,
        pid_namespace=_namespace("pid"),
        pid=pid,
        pid_start=_start_of(pid),
        lock_name="" if lock is None else lock.name,
        lock_inode=0 if lock is None else lock.inode,
    )


def enrolments(owners: Iterable[OwnerIdentity]) -> tuple[Enrolment, ...]:
    """What these owners have said of themselves, by name."""
    said = [Enrolment(Owner(owner.name, owner.incarnation), owner.definitions) for owner in owners]
    return tuple(sorted(said, key=lambda enrolment: (enrolment.owner.name, enrolment.owner.incarnation)))


def prove_death(owner: OwnerIdentity, folder: Path, me: OwnerIdentity, *, one_kernel: bool = True) -> DeathProof | None:
    """Proof that `owner` is dead, or None: not proven.

    `me` is the prober, `folder` holds the lock files. `one_kernel` says that all who open this database run on one
    kernel at a time: SQLite's WAL requires it (sqlite.org/wal.html), and a file system that `unsafe_filesystem` does
    not name ensures it. Pass False when the user overrode that check.

    1. The prober's own program is never probed.
    2. Several kernels, and not certainly the same boot: a lock may be invisible here. Nothing is proven.
    3. The owner's lock is held: alive, whatever the rest says.
    4. Another boot: the owner's kernel is gone.
    5. Its lock, on the very inode it recorded, is free: dead (a zombie too). A missing or other file proves nothing.
    6. Same boot and pid namespace: no such pid, or that pid with another start time.
    """
    if _program_of(owner) == _program_of(me):
        return None
    boots_known = "unknown-boot" not in (owner.boot_id, me.boot_id)
    same_boot = boots_known and owner.boot_id == me.boot_id
    if not one_kernel and not same_boot:
        return None
    lock = _test_lock(folder, owner)
    if lock is _Lock.HELD:
        return None
    if boots_known and not same_boot:
        detail = f"host {owner.host!r} ran boot {owner.boot_id}; the kernel that has this database now is {me.boot_id}"
        return DeathProof(owner.incarnation, "rebooted", detail)
    if lock is _Lock.RELEASED:
        detail = f"lock file {owner.lock_name} (inode {owner.lock_inode}) of pid {owner.pid} is no longer locked"
        return DeathProof(owner.incarnation, "lock_released", detail)
    if same_boot and owner.pid_namespace != "" and owner.pid_namespace == me.pid_namespace:
        return _test_pid(owner)
    return None


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


class _Lock(Enum):
    HELD = auto()
    RELEASED = auto()
    UNTESTED = auto()


def _program_of(owner: OwnerIdentity) -> tuple[str, str, int, int]:
    return owner.boot_id, owner.pid_namespace, owner.pid, owner.pid_start


def _test_lock(folder: Path, owner: OwnerIdentity) -> _Lock:
    if not owner.lock_name or not owner.lock_inode or os.path.basename(owner.lock_name) != owner.lock_name:
        return _Lock.UNTESTED
    try:
        fd = _open_for_test(folder / owner.lock_name)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return _Lock.UNTESTED
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_ino != owner.lock_inode:
            return _Lock.UNTESTED
        return _Lock.RELEASED if _try_flock(fd, fcntl.LOCK_SH) else _Lock.HELD
    except OSError:
        return _Lock.UNTESTED
    finally:
        os.close(fd)


def _test_pid(owner: OwnerIdentity) -> DeathProof | None:
    where = "same boot, same pid namespace"
    if owner.pid <= 0:  # kill(2) would take it for a process group
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return DeathProof(owner.incarnation, "pid_gone", f"pid {owner.pid} does not exist ({where})")
    except PermissionError:
        pass  # it exists and is another user's
    except (OSError, OverflowError):
        return None
    start = _start_of(owner.pid)
    if -1 in (start, owner.pid_start) or start == owner.pid_start:
        return None
    detail = f"pid {owner.pid} started at tick {start}, the owner at tick {owner.pid_start} ({where})"
    return DeathProof(owner.incarnation, "pid_reused", detail)


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


def _namespace(kind: Literal["pid", "time"]) -> str:
    try:
        return str(os.stat(f"/proc/self/ns/{kind}").st_ino)
    except OSError:
        return ""


def _start_of(pid: int) -> int:
    """The start time of `pid` in ticks since boot, or -1 where it can't be read so that all readers agree on it."""
    try:
        # /proc may be mounted from another pid namespace, where the same number is another process.
        if os.readlink("/proc/self") != str(os.getpid()):
            return -1
        # A time namespace shifts field 22 for its readers (time_namespaces(7)); 0xEFFFFFFA is the initial one.
        if _namespace("time") not in ("", str(0xEFFFFFFA)):
            return -1
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])  # field 22; the first after the name is field 3
    except (OSError, ValueError, IndexError):
        return -1
