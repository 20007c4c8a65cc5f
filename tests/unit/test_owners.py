from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from perdure.clock import read_boot_id
from perdure.model.leases import DeathProof
from perdure.stores import owners
from perdure.stores.owners import OwnerIdentity, identify
from perdure.stores.sqlite.owner_locks import OwnerLock, state_of_lock

OWNER = """
import os, sys
from pathlib import Path
import msgspec
from perdure.clock import read_boot_id
from perdure.stores.owners import identify
from perdure.stores.sqlite.owner_locks import OwnerLock

def say(text):
    print(text, flush=True)

lock = OwnerLock.take(Path(sys.argv[1]), "inc-1")
say(msgspec.json.encode(identify("worker", "inc-1", read_boot_id(), lock)).decode())
"""
WAITS = "sys.stdin.readline()\n"
FORKS = """
if os.fork() == 0:
    say("forked")
    sys.stdin.readline()
    lock.release()
    say("released in the child")
    sys.stdin.readline()
    os._exit(0)
signal_never_comes, _ = os.pipe()
os.read(signal_never_comes, 1)
"""


def prove_death(owner: OwnerIdentity, folder: Path, me: OwnerIdentity, *, one_kernel: bool = True) -> DeathProof | None:
    return owners.prove_death(owner, me, partial(state_of_lock, folder), one_kernel=one_kernel)


@contextmanager
def program(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:  # closes the pipes (which ends a forked child too) and waits
        try:
            yield run
        finally:
            run.kill()


def hear(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().rstrip("\n")


def tell(run: subprocess.Popen[str]) -> None:
    assert run.stdin is not None
    run.stdin.write("go on\n")
    run.stdin.flush()


def hear_owner(run: subprocess.Popen[str]) -> OwnerIdentity:
    return msgspec.json.decode(hear(run), type=OwnerIdentity)


def become_zombie(run: subprocess.Popen[str]) -> None:
    """Kill and wait for the death without reaping."""
    os.kill(run.pid, signal.SIGKILL)
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)


def kill(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.wait()


@pytest.fixture
def me() -> OwnerIdentity:
    return identify("prober", "inc-me", read_boot_id(), None)


def test_a_living_owner_is_not_proven_dead(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        assert prove_death(hear_owner(run), tmp_path, me) is None


def test_a_killed_owner_is_proven_by_its_released_lock(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        owner = hear_owner(run)
        kill(run)

    proof = prove_death(owner, tmp_path, me)

    detail = f"lock file {owner.lock_name} (inode {owner.lock_inode}) of pid {owner.pid} is no longer locked"
    assert proof == DeathProof("inc-1", "lock_released", detail)


def test_a_zombie_is_proven_by_its_released_lock(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        owner = hear_owner(run)
        become_zombie(run)

        proof = prove_death(owner, tmp_path, me)
        without_lock = prove_death(msgspec.structs.replace(owner, lock_name=""), tmp_path, me)

    assert proof is not None
    assert proof.method == "lock_released"
    assert without_lock is None


def test_a_child_that_inherited_the_lock_keeps_it_held_after_the_owners_death(
    tmp_path: Path, me: OwnerIdentity
) -> None:
    with program(OWNER + FORKS, tmp_path) as run:
        owner = hear_owner(run)
        assert hear(run) == "forked"
        kill(run)
        while_child_holds = prove_death(owner, tmp_path, me)
        tell(run)
        assert hear(run) == "released in the child"
        after_child_let_go = prove_death(owner, tmp_path, me)

    assert while_child_holds is None
    assert after_child_let_go is not None
    assert after_child_let_go.method == "lock_released"


def test_a_release_in_a_forked_child_neither_unlocks_nor_removes_the_owners_file(
    tmp_path: Path, me: OwnerIdentity
) -> None:
    with program(OWNER + FORKS, tmp_path) as run:
        owner = hear_owner(run)
        assert hear(run) == "forked"
        tell(run)
        assert hear(run) == "released in the child"

        assert prove_death(owner, tmp_path, me) is None
        assert os.listdir(tmp_path) == [owner.lock_name]


def test_a_killed_owner_without_lock_file_is_proven_by_its_pid(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        owner = hear_owner(run)
        kill(run)
    (tmp_path / owner.lock_name).unlink()

    proof = prove_death(owner, tmp_path, me)

    detail = f"pid {owner.pid} does not exist (same boot, same pid namespace)"
    assert proof == DeathProof("inc-1", "pid_gone", detail)


@pytest.mark.parametrize("put", ["nothing", "file", "fifo", "symlink", "folder"])
def test_a_missing_or_other_lock_file_proves_nothing_of_a_living_owner(
    tmp_path: Path, me: OwnerIdentity, put: str
) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        owner = hear_owner(run)
        path = tmp_path / owner.lock_name
        path.rename(tmp_path / "aside")
        if put == "file":
            path.touch()
        elif put == "fifo":
            os.mkfifo(path)
            owner = msgspec.structs.replace(owner, lock_inode=path.stat().st_ino)
        elif put == "symlink":
            path.symlink_to(tmp_path / "elsewhere")
            (tmp_path / "elsewhere").touch()
            owner = msgspec.structs.replace(owner, lock_inode=(tmp_path / "elsewhere").stat().st_ino)
        elif put == "folder":
            path.mkdir()
            owner = msgspec.structs.replace(owner, lock_inode=path.stat().st_ino)

        assert prove_death(owner, tmp_path, me) is None


@pytest.mark.parametrize("name", ["../inside.lock", "/inside.lock", "..", "a\0b"])
def test_a_lock_name_that_is_no_plain_file_name_is_not_opened(tmp_path: Path, me: OwnerIdentity, name: str) -> None:
    free = tmp_path / "inside.lock"
    free.touch()
    owner = msgspec.structs.replace(me, pid=os.getppid(), pid_start=-1, lock_name=name, lock_inode=free.stat().st_ino)

    assert prove_death(owner, tmp_path / "folder", me) is None


def test_a_pid_with_another_start_time_is_another_process(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        living = hear_owner(run)
        before = msgspec.structs.replace(living, pid_start=living.pid_start - 5, lock_name="", lock_inode=0)
        unknown = msgspec.structs.replace(before, pid_start=-1)

        proof = prove_death(before, tmp_path, me)
        unproven = prove_death(unknown, tmp_path, me)

    facts = f"pid {living.pid} started at tick {living.pid_start}, the owner at tick {living.pid_start - 5}"
    assert proof == DeathProof("inc-1", "pid_reused", f"{facts} (same boot, same pid namespace)")
    assert unproven is None


def test_a_held_lock_outweighs_every_other_sign(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        living = hear_owner(run)

        assert prove_death(msgspec.structs.replace(living, pid_start=1), tmp_path, me) is None
        assert prove_death(msgspec.structs.replace(living, boot_id="another-boot"), tmp_path, me) is None


@pytest.mark.parametrize(
    "change",
    [
        {"pid_namespace": "1"},
        {"pid_namespace": ""},
        {"boot_id": "unknown-boot"},
        {"pid": 0},
        {"pid": -1},
        {"pid": -(2**30)},
        {"pid": 2**70},
    ],
)
def test_a_pid_that_means_nothing_here_proves_nothing(
    tmp_path: Path, me: OwnerIdentity, change: dict[str, object]
) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        dead = msgspec.structs.replace(hear_owner(run), lock_name="", lock_inode=0)
        kill(run)

    assert prove_death(dead, tmp_path, me) is not None
    assert prove_death(msgspec.structs.replace(dead, **change), tmp_path, me) is None


def test_unknown_boots_and_namespaces_on_both_sides_are_not_the_same_ones(tmp_path: Path, me: OwnerIdentity) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        dead = msgspec.structs.replace(hear_owner(run), lock_name="", lock_inode=0)
        kill(run)

    for unknown in ({"boot_id": "unknown-boot"}, {"pid_namespace": ""}):
        here, there = (msgspec.structs.replace(each, **unknown) for each in (me, dead))
        assert prove_death(there, tmp_path, here) is None


def test_an_owner_of_another_boot_is_dead(tmp_path: Path, me: OwnerIdentity) -> None:
    owner = msgspec.structs.replace(me, incarnation="inc-1", host="box", boot_id="boot-0")

    proof = prove_death(owner, tmp_path, msgspec.structs.replace(me, boot_id="boot-1"))

    detail = "host 'box' ran boot boot-0; the kernel that has this database now is boot-1"
    assert proof == DeathProof("inc-1", "rebooted", detail)


def test_an_unknown_boot_is_not_another_boot(tmp_path: Path, me: OwnerIdentity) -> None:
    unknown = msgspec.structs.replace(me, pid=os.getppid(), boot_id="unknown-boot")

    assert prove_death(unknown, tmp_path, me) is None
    assert prove_death(msgspec.structs.replace(me, pid=os.getppid()), tmp_path, unknown) is None


def test_where_several_kernels_may_open_the_file_another_boot_and_a_free_lock_prove_nothing(
    tmp_path: Path, me: OwnerIdentity
) -> None:
    with program(OWNER + WAITS, tmp_path) as run:
        dead = hear_owner(run)
        kill(run)
    elsewhere = msgspec.structs.replace(dead, boot_id="another-boot")

    assert prove_death(elsewhere, tmp_path, me, one_kernel=False) is None
    here = prove_death(dead, tmp_path, me, one_kernel=False)
    assert here is not None
    assert here.method == "lock_released"


def test_an_owner_in_the_probers_own_program_is_never_probed(tmp_path: Path, me: OwnerIdentity) -> None:
    lock = OwnerLock.take(tmp_path, "inc-1")
    owner = identify("worker", "inc-1", me.boot_id, lock)
    os.close(os.open(tmp_path / "free.lock", os.O_CREAT | os.O_WRONLY))
    free = msgspec.structs.replace(owner, lock_name="free.lock", lock_inode=(tmp_path / "free.lock").stat().st_ino)

    assert prove_death(owner, tmp_path, me) is None
    assert prove_death(free, tmp_path, me) is None

    lock.release()
