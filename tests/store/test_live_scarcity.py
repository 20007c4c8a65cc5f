"""Live output between programs on one file when there is too little: descriptors, threads, sockets, room."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from perdure.contract.verbs import as_raw
from perdure.model.live import PROGRESS, RUN_OVER, Chunk
from perdure.runtime.live import LiveHub
from perdure.stores.sqlite import live, live_sender
from perdure.stores.sqlite.live_sender import MOST_WAITING, MOST_WAITING_BYTES, Fresh, digest_of
from perdure.stores.sqlite.wake import Addresses
from tests.store.live_wires import LONGEST_WAIT_S, chunk, follow, nothing, until, wire_in

pytestmark = pytest.mark.usefixtures("no_thread_is_left_behind")


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
            follow(b, "p", lambda chunk: heard.append(chunk.number))
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
            ends = [follow(b, "p", lambda chunk: first.append(chunk.number))]
            assert failed.is_set()
            b.send(chunk(1), nothing)
            assert first == [1]
            ends.append(follow(b, "p", lambda chunk: second.append(chunk.number)))
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
            follow(b, "p", lambda chunk: heard.append(chunk.number))
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
            follow(c, "p", lambda chunk: heard.append(chunk.number))
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
                follow(wire, process_id, lambda chunk: heard.append(f"{chunk.process_id}{chunk.number}"))
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
            follow(b, "p", lambda chunk: heard.append(chunk.number))
            for number in range(1, 1_000):
                a.send(chunk(number, "q", "x" * 1_000), nothing)
            await until(lambda: "deaf" in a._sender._programs and a._sender._programs["deaf"].futile > 0)
            a.send(chunk(1), nothing)
            await until(lambda: heard == [1])
        deaf.close()

    asyncio.run(main())


def test_code_publishes_while_a_follower_is_still_being_made_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as wire:
            hub, said = LiveHub(wire), threading.Event()
            run = hub.open_run("p", 1, 1)
            run.publish("tokens", as_raw("before"), None)

            def publish() -> None:
                run.publish("tokens", as_raw("meanwhile"), None)
                said.set()

            def slow_disk(*arguments: Any) -> None:
                if not said.is_set():
                    threading.Thread(target=publish, daemon=True).start()
                assert said.wait(LONGEST_WAIT_S)
                link(*arguments)

            link = os.link
            monkeypatch.setattr(os, "link", slow_disk)
            with hub.following("p", (), 10) as follower:
                run.publish("tokens", as_raw("after"), None)
                assert [(one.value, one.missed) for one in follower.take()] == [
                    ("before", 0), ("meanwhile", 0), ("after", 0),
                ]  # fmt: skip

    asyncio.run(main())


def test_what_waits_to_be_given_out_is_bounded_in_number_and_in_bytes() -> None:
    fresh = Fresh()
    for number in range(1, 101):
        fresh.add(chunk(number, text="x" * 60_000), nothing)
    kept = [chunk.number for chunk in fresh.chunks.all()]
    assert kept == list(range(101 - len(kept), 101))
    assert MOST_WAITING_BYTES - 120_000 < len(kept) * 60_000 < MOST_WAITING_BYTES

    for number in range(1, 3_001):
        fresh.add(chunk(number, f"p{number}"), nothing)
    assert [chunk.number for chunk in fresh.chunks.all()] == list(range(3_001 - MOST_WAITING, 3_001))
    assert set(fresh.recents) == {f"p{number}" for number in range(3_001 - MOST_WAITING, 3_001)}


def test_hints_of_progress_push_out_neither_chunks_nor_the_end_of_a_run_and_one_is_kept_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = MOST_WAITING + 100

    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[Chunk] = []
            for process_id in ("p", *(f"p{number}" for number in range(count))):
                follow(b, process_id, heard.append)
            with monkeypatch.context() as patched:  # so that all of it waits together
                patched.setattr(live_sender.LiveSender, "_begun", lambda sender: None)
                a.send(chunk(1), nothing)
                a.send(Chunk("p", RUN_OVER, as_raw(None), 1, 1, 0), nothing)
                for fence in (1, 2):
                    for number in range(count):
                        a.send(Chunk(f"p{number}", PROGRESS, as_raw(None), 1, fence, 0), nothing)
            a.send(chunk(2), nothing)
            await until(lambda: len(heard) == count + 3)
            assert [(one.channel, one.number) for one in heard[:3]] == [("tokens", 1), (RUN_OVER, 0), ("tokens", 2)]
            hints = [(one.process_id, one.channel, one.fence) for one in heard[3:]]
            assert hints == [(f"p{number}", PROGRESS, 2) for number in range(count)]

    asyncio.run(main())
