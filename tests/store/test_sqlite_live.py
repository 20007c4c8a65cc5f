"""Live output between programs on one file: who is sent what, what a stuck or vanished one costs, what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perdure.contract.verbs import as_raw
from perdure.errors import StoreClosed
from perdure.host import Host
from perdure.model.leases import Owner
from perdure.model.live import RUN_OVER, Chunk
from perdure.stores.sqlite.live_sender import MOST_WAITING, digest_of
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.stores.sqlite.wake import sweep_dead_sockets
from tests.store.live_wires import chunk, follow, nothing, until, wire_in

pytestmark = pytest.mark.usefixtures("no_thread_is_left_behind")

DEAF = """
import asyncio, sys
from pathlib import Path
from perdure.clock import SystemClock
from perdure.stores.sqlite.live import SqliteLiveWire

async def main():
    wire = SqliteLiveWire(Path(sys.argv[1]), "deaf", asyncio.get_running_loop(), SystemClock())
    wire.attend("p")
    wire.follow("p", print)
    print("follows", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
"""Follows p, and hears nothing once it is stopped. Ends by itself."""


def test_two_programs_hear_each_other_and_nobody_hears_itself_twice(tmp_path: Path) -> None:
    async def main() -> None:
        heard: dict[str, list[int]] = {"a": [], "b": []}
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            follow(a, "p", lambda chunk: heard["a"].append(chunk.number))
            follow(b, "p", lambda chunk: heard["b"].append(chunk.number))
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
            end = follow(b, "q", heard.append)
            follow(b, "r", heard.append)
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
            ends = [follow(a, "p", lambda chunk: None) for _ in range(2)]
            follow(a, "q", lambda chunk: None)
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
                follow(b, "p", lambda chunk: heard.append(chunk.number))
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
            follow(alive, "p", lambda chunk: None)
            names = set(os.listdir(tmp_path))
            dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            dead.bind(str(tmp_path / "dead.live"))
            os.link(tmp_path / "dead.live", tmp_path / f"{digest_of('p')}.dead.live")
            dead.close()
            assert sweep_dead_sockets(tmp_path, ".live") == 2
            assert set(os.listdir(tmp_path)) == names

    asyncio.run(main())


def test_a_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()

    async def main() -> None:
        async with wire_in(folder, "a") as a, wire_in(folder, "b") as b:
            heard: list[Chunk] = []
            follow(b, "p", heard.append)
            a.send(chunk(1), nothing)
            await until(lambda: heard == [chunk(1)])
        assert os.listdir(folder) == []

    asyncio.run(main())


def test_a_folder_that_is_gone_loses_what_is_said_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "gone" / "live"

    async def main() -> None:
        async with wire_in(folder, "a") as a:
            heard: list[Chunk] = []
            end = follow(a, "p", heard.append)
            a.send(chunk(1), nothing)
            assert heard == [chunk(1)]
            folder.parent.mkdir()
            async with wire_in(folder, "b") as b:
                follow(b, "p", heard.append)
                a.send(chunk(2), nothing)
                await until(lambda: heard.count(chunk(2)) == 2)
            end()

    asyncio.run(main())


def test_datagrams_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            heard: list[Chunk] = []
            follow(b, "p", heard.append)
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
            follow(b, "p", lambda chunk: heard.append(chunk.number))
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
        end = follow(registry.live_wire, "p", lambda chunk: None)
        end()
        await registry.close()
        assert os.listdir(tmp_path / "work.db.owners" / "live") == []

    asyncio.run(main())


def test_who_follows_has_no_writer_look_for_new_programs(tmp_path: Path) -> None:
    owners, long_ago = tmp_path / "work.db.owners", 1_000_000_000_000_000_000

    async def main() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db")
        follow(registry.live_wire, "p", lambda chunk: None)()
        os.utime(owners, ns=(long_ago, long_ago))
        end = follow(registry.live_wire, "q", lambda chunk: None)
        assert owners.stat().st_mtime_ns == long_ago  # what a ringer goes by
        program = registry.live_wire._ears._program
        assert set(os.listdir(owners / "live")) == {f"{program}.live", f"{digest_of('q')}.{program}.live"}
        assert stat.S_IMODE((owners / "live").stat().st_mode) == 0o700
        end()
        assert owners.stat().st_mtime_ns == long_ago
        await registry.close()
        assert os.listdir(owners / "live") == []

    asyncio.run(main())


def test_what_a_vanished_program_has_left_goes_when_a_worker_enrols(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "work.db.owners" / "live"
        folder.mkdir(mode=0o700, parents=True)
        dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        dead.bind(str(folder / "dead.live"))
        os.link(folder / "dead.live", folder / f"{digest_of('p')}.dead.live")
        dead.close()
        registry = await SqliteRegistry.open(tmp_path / "work.db")
        await registry.enrol(Owner("w", "inc-1"))
        assert os.listdir(folder) == []
        await registry.close()

    asyncio.run(main())


def test_following_what_is_closed_binds_nothing_anew(tmp_path: Path) -> None:
    async def main() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db")
        wire = registry.live_wire
        follow(wire, "p", lambda chunk: None)
        await registry.close()
        end = follow(wire, "q", lambda chunk: None)
        assert os.listdir(tmp_path / "work.db.owners" / "live") == []
        assert wire._ears._socket is None
        end()

    asyncio.run(main())


def test_a_handle_whose_host_is_closed_is_followed_no_more_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        host = Host(f"sqlite:///{tmp_path / 'work.db'}")
        async with host:
            handle = await host.register_external("letter", id="p")
        with pytest.raises(StoreClosed):
            await anext(handle.follow())
        with pytest.raises(StoreClosed):
            await anext(handle.follow_progress())
        assert os.listdir(tmp_path / "work.db.owners") == ["writers.queue"]

    asyncio.run(main())


def test_a_second_follower_of_a_program_hears_what_the_first_has_heard_lately(tmp_path: Path) -> None:
    async def main() -> None:
        async with wire_in(tmp_path, "a") as a, wire_in(tmp_path, "b") as b:
            first, second, third = list[Chunk](), list[Chunk](), list[Chunk]()
            ends = [follow(b, "p", first.append)]
            a.send(chunk(1), nothing)
            await until(lambda: first == [chunk(1)])
            ends.append(follow(b, "p", second.append))
            assert second == [chunk(1)]
            a.send(Chunk("p", RUN_OVER, as_raw(None), 1, 1, 0), nothing)
            await until(lambda: len(second) == 2)
            ends.append(follow(b, "p", third.append))
            assert third == []
            for end in ends:
                end()
            assert b._ears._heard == {}

    asyncio.run(main())
