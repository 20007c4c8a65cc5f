"""Who an owner is, and proof that one is dead.

An owner records the pid, start time, pid namespace and boot id of its program, and the lock that it holds, if its store
has locks. Absence of proof is never death: it only means waiting for the lease to expire.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from enum import Enum, auto
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from perdure.model.leases import DeathProof, Enrolment, Owner
from perdure.model.registration import Definition


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


class OwnerReport(msgspec.Struct, frozen=True):
    """What a look finds of one owner: `dead` only with proof, `alive` only while it is seen to be, else `unproven`."""

    incarnation: str
    name: str
    leases: int
    state: Literal["alive", "dead", "unproven"]
    detail: str
    proof: DeathProof | None = None


class HeldLock(Protocol):
    """A lock that the system drops when its owner's program has ended: the name of its file, and the inode."""

    name: str
    inode: int


class LockState(Enum):
    """What is found of the lock that an owner has recorded. UNTESTED proves nothing."""

    HELD = auto()
    RELEASED = auto()
    UNTESTED = auto()


def identify(name: str, incarnation: str, boot_id: str, lock: HeldLock | None) -> OwnerIdentity:
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


def prove_death(
    owner: OwnerIdentity, me: OwnerIdentity, test_lock: Callable[[OwnerIdentity], LockState], *, one_kernel: bool
) -> DeathProof | None:
    """Proof that `owner` is dead, or None: not proven.

    `me` is the prober; `test_lock` is asked at most once. `one_kernel` says that all who open this database run on one
    kernel at a time: SQLite's WAL requires it (sqlite.org/wal.html), and a file system that `unsafe_filesystem` does
    not name ensures it. False when the user overrode that check, and for a database on a server.

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
    lock = test_lock(owner)
    if lock is LockState.HELD:
        return None
    if boots_known and not same_boot:
        detail = f"host {owner.host!r} ran boot {owner.boot_id}; the kernel that has this database now is {me.boot_id}"
        return DeathProof(owner.incarnation, "rebooted", detail)
    if lock is LockState.RELEASED:
        detail = f"lock file {owner.lock_name} (inode {owner.lock_inode}) of pid {owner.pid} is no longer locked"
        return DeathProof(owner.incarnation, "lock_released", detail)
    if same_boot and owner.pid_namespace != "" and owner.pid_namespace == me.pid_namespace:
        return _test_pid(owner)
    return None


def is_alive_here(owner: OwnerIdentity, me: OwnerIdentity) -> bool:
    """Whether the owner's program is seen: same boot and pid namespace as `me`, and its pid with its start time."""
    if _program_of(owner) == _program_of(me):
        return True
    known = "unknown-boot" not in (owner.boot_id, me.boot_id) and "" not in (owner.pid_namespace, me.pid_namespace)
    same = (owner.boot_id, owner.pid_namespace) == (me.boot_id, me.pid_namespace)
    return known and same and owner.pid_start != -1 and _start_of(owner.pid) == owner.pid_start


def _program_of(owner: OwnerIdentity) -> tuple[str, str, int, int]:
    return owner.boot_id, owner.pid_namespace, owner.pid, owner.pid_start


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
