from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.stores.sqlite.wake import Ringer, WakeSocket, is_stale_socket

RECEIVER = """
import os, select, sys
from pathlib import Path
from perdure.stores.sqlite.wake import WakeSocket
wake = WakeSocket.open(Path(sys.argv[1]), sys.argv[2])
print("bound", flush=True)
"""
REPORTS_HINTS = """
while True:
    select.select([wake], [], [])
    print("woken" if wake.drain() else "nothing", flush=True)
"""
WAITS = "sys.stdin.readline()\n"
FORKS = """
if os.fork() == 0:
    wake.close()
    os._exit(0)
os.wait()
print("child closed", flush=True)
sys.stdin.readline()
"""


@contextmanager
def program(script: str, folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        try:
            yield run
        finally:
            run.kill()


def hear(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().rstrip("\n")


def opened(folder: Path, name: str) -> WakeSocket:
    wake = WakeSocket.open(folder, name)
    assert wake is not None
    return wake


def leave_stale(folder: Path, name: str) -> Path:
    """A socket file whose process was killed."""
    with program(RECEIVER + WAITS, folder, name) as run:
        assert hear(run) == "bound"
        run.kill()
        run.wait()
    return folder / f"{name}.sock"


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("a" * 90) / ("b" * 90)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def ringer(tmp_path: Path) -> Iterator[Ringer]:
    made = Ringer(tmp_path, "me")
    yield made
    made.close()


def test_a_wake_socket_is_private_and_its_file_goes_with_it(tmp_path: Path) -> None:
    wake = opened(tmp_path, "a")

    assert os.listdir(tmp_path) == ["a.sock"]
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    assert not os.get_inheritable(wake.fileno())
    assert not os.get_blocking(wake.fileno())
    wake.close()
    wake.close()
    assert os.listdir(tmp_path) == []
    assert wake.fileno() == -1
    assert wake.drain() is False


def test_hints_coalesce(tmp_path: Path, ringer: Ringer) -> None:
    wake = opened(tmp_path, "a")

    assert wake.drain() is False
    for _ in range(5000):
        assert ringer.ring() == 1
    assert select.select([wake], [], [], 0)[0] == [wake]
    assert wake.drain() is True
    assert wake.drain() is False

    wake.close()


def test_a_ring_wakes_another_process(tmp_path: Path, ringer: Ringer) -> None:
    with program(RECEIVER + REPORTS_HINTS, tmp_path, "other") as run:
        assert hear(run) == "bound"
        for _ in range(3):
            assert ringer.ring() == 1
            assert hear(run) == "woken"


def test_a_ring_leaves_out_its_own_socket(tmp_path: Path, ringer: Ringer) -> None:
    mine, other = opened(tmp_path, "me"), opened(tmp_path, "other")

    assert ringer.ring() == 1
    assert (mine.drain(), other.drain()) == (False, True)

    mine.close()
    other.close()


def test_paths_longer_than_a_socket_address_work_both_ways(long_folder: Path) -> None:
    wake, ringer = opened(long_folder, "a"), Ringer(long_folder, "me")
    descriptors = len(os.listdir("/proc/self/fd"))

    assert len(str(long_folder)) > 150
    with program(RECEIVER + REPORTS_HINTS, long_folder, "b") as run:
        assert hear(run) == "bound"
        for number in range(10):
            assert ringer.ring(float(number)) == 2
            assert hear(run) == "woken"
    assert wake.drain() is True
    assert is_stale_socket(long_folder, "b.sock")
    assert ringer.ring() == 1
    assert os.listdir(long_folder) == ["a.sock"]

    ringer.close()
    wake.close()
    assert os.listdir(long_folder) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_the_socket_of_a_killed_process_is_removed_by_the_next_ring(tmp_path: Path, ringer: Ringer) -> None:
    stale = leave_stale(tmp_path, "dead")
    wake = opened(tmp_path, "a")

    assert is_stale_socket(tmp_path, "dead.sock")
    assert not is_stale_socket(tmp_path, "a.sock")
    assert ringer.ring() == 1
    assert not stale.exists()
    assert wake.drain() is True

    wake.close()


def test_a_file_that_is_no_socket_is_neither_rung_nor_removed(tmp_path: Path, ringer: Ringer) -> None:
    (tmp_path / "plain.sock").touch()
    (tmp_path / "link.sock").symlink_to("plain.sock")

    assert ringer.ring() == 0
    assert not is_stale_socket(tmp_path, "plain.sock")
    assert sorted(os.listdir(tmp_path)) == ["link.sock", "plain.sock"]


def test_a_socket_that_vanished_or_appeared_is_noticed(tmp_path: Path, ringer: Ringer) -> None:
    first, second = opened(tmp_path, "a"), opened(tmp_path, "b")
    assert ringer.ring() == 2

    second.close()
    assert ringer.ring() == 1
    third = opened(tmp_path, "c")
    os.utime(tmp_path, ns=(0, 0))
    assert ringer.ring() == 2

    first.close()
    third.close()


@pytest.mark.parametrize("how", ["by a second", "by a hundred rings", "by a clock that went back"])
def test_the_folder_is_listed_again_even_when_its_mtime_is_the_same(tmp_path: Path, ringer: Ringer, how: str) -> None:
    os.utime(tmp_path, ns=(0, 0))
    assert ringer.ring(50.0) == 0
    wake = opened(tmp_path, "a")
    os.utime(tmp_path, ns=(0, 0))
    assert ringer.ring(50.5) == 0

    if how == "by a second":
        assert ringer.ring(51.0) == 1
    elif how == "by a clock that went back":
        assert ringer.ring(10.0) == 1
    else:
        assert [ringer.ring() for _ in range(99)] == [0] * 98 + [1]

    wake.close()


def test_a_peer_that_never_reads_costs_the_others_nothing(tmp_path: Path, ringer: Ringer) -> None:
    stuck = [opened(tmp_path, f"stuck-{number}") for number in range(60)]
    wake = opened(tmp_path, "z")

    for _ in range(1000):
        assert ringer.ring() == 61
        assert wake.drain() is True

    for each in [*stuck, wake]:
        each.close()


def test_a_name_is_held_by_one_living_socket_and_a_dead_one_is_replaced(tmp_path: Path, ringer: Ringer) -> None:
    leave_stale(tmp_path, "a")

    wake = opened(tmp_path, "a")
    second = WakeSocket.open(tmp_path, "a")

    assert second is None
    assert os.listdir(tmp_path) == ["a.sock"]
    assert ringer.ring() == 1
    assert wake.drain() is True
    wake.close()


@pytest.mark.parametrize("name", ["", "../a", "a\0b", "\ud800", "n" * 300])
def test_a_socket_that_cant_be_made_is_none(tmp_path: Path, name: str) -> None:
    assert WakeSocket.open(tmp_path, name) is None
    assert os.listdir(tmp_path) == []


def test_a_socket_in_a_missing_folder_is_none_and_a_ring_there_reaches_nobody(tmp_path: Path) -> None:
    ringer = Ringer(tmp_path / "later", "me")

    assert WakeSocket.open(tmp_path / "later", "a") is None
    assert ringer.ring() == 0
    (tmp_path / "later").mkdir()
    wake = opened(tmp_path / "later", "a")
    assert ringer.ring() == 1

    wake.close()
    ringer.close()


def test_a_forked_childs_close_leaves_the_file(tmp_path: Path, ringer: Ringer) -> None:
    with program(RECEIVER + FORKS, tmp_path, "a") as run:
        assert hear(run) == "bound"
        assert hear(run) == "child closed"

        assert os.listdir(tmp_path) == ["a.sock"]
        assert ringer.ring() == 1


def test_a_close_leaves_a_file_that_replaced_its_own(tmp_path: Path) -> None:
    wake = opened(tmp_path, "a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "other"))
        (tmp_path / "other").rename(tmp_path / "a.sock")

        wake.close()

        assert os.listdir(tmp_path) == ["a.sock"]


def test_a_closed_ringer_rings_nobody(tmp_path: Path, ringer: Ringer) -> None:
    wake = opened(tmp_path, "a")
    ringer.close()
    ringer.close()

    assert ringer.ring() == 0
    assert wake.drain() is False

    wake.close()
