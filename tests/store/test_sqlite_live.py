"""Live output between programs on one file: who is sent what, what a stuck or vanished one costs, what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.clock import SystemClock
from perdure.contract.verbs import as_raw
from perdure.model.live import RUN_OVER, Chunk
from perdure.stores.sqlite import live, live_sender
from perdure.stores.sqlite.live import SqliteLiveWire
from perdure.stores.sqlite.live_sender import MOST_WAITING, digest_of
from perdure.stores.sqlite.owners import sweep_dead_files
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.stores.sqlite.wake import Addresses

LONGEST_WAIT_S = 20.0

DEAF = """
import asyncio, sys
from pathlib import Path
from perdure.clock import SystemClock
from perdure.stores.sqlite.live import SqliteLiveWire

async def main():
    wire = SqliteLiveWire(Path(sys.argv[1]), "deaf", asyncio.get_running_loop(), SystemClock())
    wire.follow("p", print)
    print("follows", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
"""Follows p, and hears nothing once it is stopped. Ends by itself."""


def chunk(number: int, process_id: str = "p", text: str = "") -> Chunk:
    return Chunk(process_id, "tokens", as_raw(text or number), 1, 1, number, "step")


def nothing() -> tuple[Chunk, ...]:
    return ()


@asynccontextmanager
async def wire_in(folder: Path, program: str) -> AsyncIterator[SqliteLiveWire]:
    wire = SqliteLiveWire(folder, program, asyncio.get_running_loop(), SystemClock())
    try:
        yield wire
    finally:
        wire.close()
        await asyncio.wrap_future(wire.stop())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not holds():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LONGEST_WAIT_S)
        assert not thread.is_alive(), thread.name


def test_two_programs_hear_each_other_and_nobody_hears_itself_twice(tmp_path: Path) -> None:
    async def main() -> None:
        heard: dict[str, list[int]] = {"a": [], "b": []}
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            a.follow("p", lambda chunk: heard["a"].append(chunk.number))
            b.follow("p", lambda chunk: heard["b"].append(chunk.number))
            a.send(chunk(1), nothing)
            await until(lambda: heard["b"] == [1])
            b.send(chunk(2), nothing)
            await until(lambda: heard["a"] == [1, 2])
            assert heard == {"a": [1, 2], "b": [1, 2]}

    asyncio.run(main())


def test_a_program_is_sent_what_it_follows_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[Chunk] = []
            end = b.follow("q", heard.append)
            b.follow("r", heard.append)
            socket, hear = b._ears._socket, b._ears._hear
            assert socket is not None
            datagrams: list[int] = []

            def counted() -> None:
                datagrams.append(1)
                hear()

            asyncio.get_running_loop().add_reader(socket.fileno(), counted)
            for number in range(1, 50):
                a.send(chunk(number), nothing)
            a.send(chunk(1, "q"), nothing)
            await until(lambda: bool(heard))
            assert (heard, datagrams) == ([chunk(1, "q")], [1])
            end()
            a.send(chunk(2, "q"), nothing)
            a.send(chunk(1, "r"), nothing)
            await until(lambda: len(heard) == 2)
            assert heard[1] == chunk(1, "r")

    asyncio.run(main())


def test_names_stand_in_the_folder_while_somebody_follows_and_all_are_gone_at_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a:
            assert os.listdir(tmp_path) == []
            ends = [a.follow("p", lambda chunk: None) for _ in range(2)]
            a.follow("q", lambda chunk: None)
            names = {"a.live", f"{digest_of('p')}.a.live", f"{digest_of('q')}.a.live"}
            assert set(os.listdir(tmp_path)) == names
            ends[0]()
            assert set(os.listdir(tmp_path)) == names
            ends[1]()
            assert set(os.listdir(tmp_path)) == names - {f"{digest_of('p')}.a.live"}
        assert os.listdir(tmp_path) == []

    asyncio.run(main())


def test_a_follower_that_takes_nothing_delays_neither_the_publisher_nor_the_others(tmp_path: Path) -> None:
    deaf = subprocess.Popen([sys.executable, "-c", DEAF, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == "follows\n"
        deaf.send_signal(signal.SIGSTOP)

        async def main() -> None:
            async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
                heard: list[int] = []
                b.follow("p", lambda chunk: heard.append(chunk.number))
                for number in range(1, 4_001):
                    a.send(chunk(number, text="x" * 1_000), nothing)
                    if number % 500 == 0:
                        await until(lambda: heard[-1:] == [number])  # noqa: B023 - now
                assert heard == list(range(1, 4_001))
                waiting = a._sender._programs["deaf"].waiting
                assert 0 < len(waiting) <= MOST_WAITING

        asyncio.run(main())
    finally:
        deaf.kill()
        deaf.communicate()


def test_a_program_that_vanished_is_found_out_and_its_names_are_removed(tmp_path: Path) -> None:
    deaf = subprocess.Popen([sys.executable, "-c", DEAF, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == "follows\n"
    deaf.kill()
    deaf.communicate()
    assert sorted(os.listdir(tmp_path)) == [f"{digest_of('p')}.deaf.live", "deaf.live"]

    async def main() -> None:
        async with wire_in(tmp_path, "a") as a:
            a.send(chunk(1), nothing)
            await until(lambda: os.listdir(tmp_path) == [])
            a.send(chunk(2), nothing)

    asyncio.run(main())


def test_what_a_vanished_program_has_left_is_swept_with_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "alive") as alive:
            alive.follow("p", lambda chunk: None)
            names = set(os.listdir(tmp_path))
            dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            dead.bind(str(tmp_path / "dead.live"))
            os.link(tmp_path / "dead.live", tmp_path / f"{digest_of('p')}.dead.live")
            dead.close()
            assert sweep_dead_files(tmp_path, ()) == 2
            assert set(os.listdir(tmp_path)) == names

    asyncio.run(main())


def test_a_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()

    async def main() -> None:
        async with wire_in(folder, "a") as a, wire_in(folder, "b") as b:
            heard: list[Chunk] = []
            b.follow("p", heard.append)
            a.send(chunk(1), nothing)
            await until(lambda: heard == [chunk(1)])
        assert os.listdir(folder) == []

    asyncio.run(main())


def test_a_folder_that_is_gone_loses_what_is_said_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "gone"

    async def main() -> None:
        async with wire_in(folder, "a") as a:
            heard: list[Chunk] = []
            end = a.follow("p", heard.append)
            a.send(chunk(1), nothing)
            assert heard == [chunk(1)]
            folder.mkdir()
            async with wire_in(folder, "b") as b:
                b.follow("p", heard.append)
                a.send(chunk(2), nothing)
                await until(lambda: heard.count(chunk(2)) == 2)
            end()

    asyncio.run(main())


def test_datagrams_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[Chunk] = []
            b.follow("p", heard.append)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                for text in (b"", b"\xff\xfe", b"{}", b"[1]", b'[{"process_id":"p"}]'):
                    stranger.sendto(text, str(tmp_path / "b.live"))
            a.send(chunk(1), nothing)
            await until(lambda: heard == [chunk(1)])

    asyncio.run(main())


def test_what_was_said_just_before_the_end_is_still_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "b") as b:
            heard: list[int] = []
            b.follow("p", lambda chunk: heard.append(chunk.number))
            async with wire_in(tmp_path, "a") as a:
                for number in range(1, 101):
                    a.send(chunk(number), nothing)
            await until(lambda: heard == list(range(1, 101)))
            a.send(chunk(101), nothing)
            assert heard[-1] == 100

    asyncio.run(main())


def test_a_registry_that_publishes_nothing_starts_no_thread_for_it_and_leaves_no_name(tmp_path: Path) -> None:
    async def main() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db")
        names = {thread.name for thread in threading.enumerate()}
        assert "perdure-sqlite-writer" in names
        assert "perdure-sqlite-live" not in names
        end = registry.live_wire.follow("p", lambda chunk: None)
        end()
        await registry.close()
        assert [name for name in os.listdir(tmp_path / "work.db.owners") if name.endswith(".live")] == []

    asyncio.run(main())


def test_a_second_follower_of_a_program_hears_what_the_first_has_heard_lately(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            first, second, third = list[Chunk](), list[Chunk](), list[Chunk]()
            ends = [b.follow("p", first.append)]
            a.send(chunk(1), nothing)
            await until(lambda: first == [chunk(1)])
            ends.append(b.follow("p", second.append))
            assert second == [chunk(1)]
            a.send(Chunk("p", RUN_OVER, as_raw(None), 1, 1, 0), nothing)
            await until(lambda: len(second) == 2)
            ends.append(b.follow("p", third.append))
            assert third == []
            for end in ends:
                end()
            assert b._ears._heard == {}

    asyncio.run(main())


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> threading.Event:
    """Have the function fail once for want of a descriptor; the event says that it has."""
    function, failed = getattr(owner, name), threading.Event()

    def first_fails(*arguments: object) -> object:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return function(*arguments)

    monkeypatch.setattr(owner, name, first_fails)
    return failed


@pytest.mark.parametrize(("owner", "name"), [(live_sender, "new_sender"), (Addresses, "of")], ids=["socket", "folder"])
def test_a_want_of_descriptors_loses_what_is_said_meanwhile_and_nothing_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[int] = []
            b.follow("p", lambda chunk: heard.append(chunk.number))
            failed = failing_once(monkeypatch, owner, name)
            a.send(chunk(1), nothing)
            await until(failed.is_set)
            a.send(chunk(2), nothing)
            await until(lambda: heard == [2])

    asyncio.run(main())


@pytest.mark.parametrize(("owner", "name"), [(live, "new_sender"), (live, "bind_socket"), (os, "link")])
def test_a_program_that_cannot_be_told_of_follows_its_own_and_is_told_of_with_its_next_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            first, second = list[int](), list[int]()
            failed = failing_once(monkeypatch, owner, name)
            ends = [b.follow("p", lambda chunk: first.append(chunk.number))]
            assert failed.is_set()
            b.send(chunk(1), nothing)
            assert first == [1]
            ends.append(b.follow("p", lambda chunk: second.append(chunk.number)))
            a.send(chunk(2), nothing)
            await until(lambda: second == [2])
            assert first == [1, 2]
            for end in ends:
                end()
            b.send(chunk(3), nothing)
            assert (first, second) == ([1, 2], [2])
        assert os.listdir(tmp_path) == []

    asyncio.run(main())


def test_a_thread_that_cannot_be_started_is_started_by_what_is_said_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, start = list[int](), threading.Thread.start

    def first_fails(thread: threading.Thread) -> None:
        started.append(1)
        if len(started) == 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[int] = []
            b.follow("p", lambda chunk: heard.append(chunk.number))
            monkeypatch.setattr(threading.Thread, "start", first_fails)
            a.send(chunk(1), nothing)
            a.send(chunk(2), nothing)
            await until(lambda: heard == [1, 2])

    asyncio.run(main())


def bound_follower(folder: Path, program: str, process_id: str) -> socket.socket:
    """A program's socket with the name for one process, which nobody reads."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind(str(folder / f"{program}.live"))
    os.link(folder / f"{program}.live", folder / f"{digest_of(process_id)}.{program}.live")
    return bound


def test_a_program_is_reached_however_many_others_follow_something_else(tmp_path: Path) -> None:
    async def main() -> None:
        others = [bound_follower(tmp_path, f"b{number:03}", "q") for number in range(live_sender.MOST_PROGRAMS)]
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "c") as c:
            heard: list[int] = []
            c.follow("p", lambda chunk: heard.append(chunk.number))
            a.send(chunk(1), nothing)
            await until(lambda: heard == [1])
            assert list(a._sender._programs) == ["c"]
        for other in others:
            other.close()

    asyncio.run(main())


def test_programs_that_follow_in_turn_share_the_sockets_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sender, "MOST_PROGRAMS", 2)

    async def main() -> None:
        heard: list[str] = []
        async with (
            wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b,
            wire_in(tmp_path, "c") as c, wire_in(tmp_path, "d") as d,
        ):  # fmt: skip
            for wire, process_id in ((b, "p"), (c, "q"), (d, "r")):
                wire.follow(process_id, lambda chunk: heard.append(f"{chunk.process_id}{chunk.number}"))
            for said in ("p1", "q1", "r1", "p2", "r2", "q2"):
                a.send(chunk(int(said[1]), said[0]), nothing)
                await until(lambda: heard[-1:] == [said])  # noqa: B023 - now
                assert len(a._sender._programs) <= 2
        assert heard == ["p1", "q1", "r1", "p2", "r2", "q2"]

    asyncio.run(main())


def test_a_program_that_takes_nothing_keeps_no_socket_from_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sender, "MOST_PROGRAMS", 1)

    async def main() -> None:
        deaf = bound_follower(tmp_path, "deaf", "q")
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[int] = []
            b.follow("p", lambda chunk: heard.append(chunk.number))
            for number in range(1, 1_000):
                a.send(chunk(number, "q", "x" * 1_000), nothing)
            await until(lambda: "deaf" in a._sender._programs and a._sender._programs["deaf"].futile > 0)
            a.send(chunk(1), nothing)
            await until(lambda: heard == [1])
        deaf.close()

    asyncio.run(main())
