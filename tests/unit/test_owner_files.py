"""The files owners leave beside the database: what is in them, and how dead ones are swept."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from perdure.stores.owners import OwnerIdentity, identify
from perdure.stores.sqlite.owner_locks import OwnerLock, sweep_dead_files
from perdure.stores.sqlite.wake import WakeSocket

OWNER = """
import sys
from pathlib import Path
import msgspec
from perdure.clock import read_boot_id
from perdure.stores.owners import identify
from perdure.stores.sqlite.owner_locks import OwnerLock
lock = OwnerLock.take(Path(sys.argv[1]), "inc-1")
print(msgspec.json.encode(identify("worker", "inc-1", read_boot_id(), lock)).decode(), flush=True)
sys.stdin.readline()
"""


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


def hear_owner(run: subprocess.Popen[str]) -> OwnerIdentity:
    return msgspec.json.decode(hear(run), type=OwnerIdentity)


def test_an_identity_tells_the_running_process(tmp_path: Path) -> None:
    lock = OwnerLock.take(tmp_path, "inc-1")

    owner = identify("worker", "inc-1", "boot-1", lock)

    lock.release()
    assert (owner.name, owner.incarnation, owner.boot_id, owner.pid) == ("worker", "inc-1", "boot-1", os.getpid())
    assert owner.host == os.uname().nodename
    assert (owner.lock_name, owner.lock_inode) == (lock.name, lock.inode)
    assert owner.pid_namespace == str(os.stat("/proc/self/ns/pid").st_ino)
    assert owner.pid_start > 0


def test_the_start_time_is_read_after_a_program_name_with_parentheses(tmp_path: Path) -> None:
    renamed = "import sys\nopen('/proc/self/comm', 'w').write(') S 1 (x) 2')\n" + OWNER

    with program(renamed, tmp_path) as run:
        owner = hear_owner(run)
        found = int(Path(f"/proc/{run.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])

    assert owner.pid_start == found


def test_a_lock_file_is_private_and_never_leaves_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "owners"

    lock = OwnerLock.take(folder, "../../etc/\0passwd")

    assert os.listdir(folder) == [lock.name]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / lock.name).stat().st_mode) == 0o600
    assert (folder / lock.name).stat().st_ino == lock.inode
    lock.release()
    assert os.listdir(folder) == []


def test_an_incarnation_is_taken_once(tmp_path: Path) -> None:
    lock = OwnerLock.take(tmp_path, "inc-1")

    with pytest.raises(FileExistsError):
        OwnerLock.take(tmp_path, "inc-1")

    lock.release()


def test_release_is_idempotent_and_leaves_a_file_that_replaced_its_own(tmp_path: Path) -> None:
    lock = OwnerLock.take(tmp_path, "inc-1")
    (tmp_path / "other").touch()
    (tmp_path / "other").rename(tmp_path / lock.name)

    lock.release()
    lock.release()

    assert os.listdir(tmp_path) == [lock.name]


def test_a_sweep_removes_dead_files_and_leaves_living_kept_and_strange_ones(tmp_path: Path) -> None:
    with program(OWNER, tmp_path) as run:
        living = hear_owner(run).lock_name
        wake = WakeSocket.open(tmp_path, "living")
        dead = WakeSocket.open(tmp_path, "dead")
        assert wake is not None
        assert dead is not None
        (tmp_path / "dead.sock").rename(tmp_path / "killed.sock")
        dead.close()
        for name in ("free.lock", "evidence.lock", "work.db", "plain.sock"):
            (tmp_path / name).touch()
        (tmp_path / "link.lock").symlink_to(tmp_path / "work.db")
        os.mkfifo(tmp_path / "fifo.lock")

        removed = sweep_dead_files(tmp_path, {"evidence.lock"})

        left = set(os.listdir(tmp_path))
        wake.close()
    assert removed == 2
    assert left == {living, "living.sock", "evidence.lock", "work.db", "plain.sock", "link.lock", "fifo.lock"}


def test_a_sweep_is_bounded_and_quiet_about_a_folder_that_is_gone(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.lock").touch()

    assert sweep_dead_files(tmp_path, (), limit=3) == 3
    assert sweep_dead_files(tmp_path, (), limit=3) == 2
    assert sweep_dead_files(tmp_path / "gone", ()) == 0


def test_a_lock_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def sweep_then_lock(fd: int, kind: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert sweep_dead_files(tmp_path, ()) == 1
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", sweep_then_lock)
    lock = OwnerLock.take(tmp_path, "inc-1")

    assert os.listdir(tmp_path) == [lock.name]
    assert (tmp_path / lock.name).stat().st_ino == lock.inode
    lock.release()


def test_a_lock_taken_while_others_sweep_is_always_on_the_file_of_its_name(tmp_path: Path) -> None:
    sweeper = """
import sys, time
from pathlib import Path
from perdure.stores.sqlite.owner_locks import sweep_dead_files
print("sweeping", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    sweep_dead_files(Path(sys.argv[1]), ())
"""
    with program(sweeper, tmp_path) as run:
        assert hear(run) == "sweeping"
        for number in range(500):
            lock = OwnerLock.take(tmp_path, f"inc-{number}")
            assert (tmp_path / lock.name).stat().st_ino == lock.inode
            lock.release()
