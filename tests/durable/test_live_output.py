"""ctx.publish and handle.follow: what running code says to whoever listens, and what becomes of it at restarts."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from perdure.contract.registry import Registry
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import CallerDeparted, InvalidOption, InvalidPayload, UnknownProcess
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.model.live import RUN_OVER, Chunk
from perdure.stores.memory import MemoryRegistry
from perdure.testing.faults import Delay, FailBefore, Fault
from perdure.testing.loop import SimulationLoop
from tests.durable.bodies import Body, go, one, run, value
from tests.durable.simulated import CALL_S, Machine, simulate


async def followed(handle: Handle[Any], *channels: str, **options: Any) -> list[Chunk]:
    return [chunk async for chunk in handle.follow(*channels, **options)]


def words(chunks: list[Chunk]) -> list[tuple[Any, int, str | None, int]]:
    return [(chunk.value, chunk.fence, chunk.step, chunk.missed) for chunk in chunks]


def followed_to_the_end(body: Body, *channels: str) -> tuple[list[Chunk], Machine]:
    """What a follower hears of a process with this body, from before its start."""
    machines: list[Machine] = []

    async def main() -> list[Chunk]:
        machine = Machine(one(body))
        machines.append(machine)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            return await followed(handle, *channels)

    return simulate(main), machines[0]


def test_a_step_streams_while_it_runs_and_the_follower_ends_with_the_process() -> None:
    async def body(ctx: ProcessContext) -> str:
        async def ask() -> str:
            for token in ("he", "llo"):
                ctx.publish("tokens", token)
                await asyncio.sleep(1)
            return "hello"

        answer = await ctx.step(ask, key="model-1")
        ctx.publish("lines", {"said": len(answer)})
        return answer

    chunks, machine = followed_to_the_end(body)
    assert words(chunks) == [("he", 1, "model-1", 0), ("llo", 1, "model-1", 0), ({"said": 5}, 1, None, 0)]
    assert [chunk.channel for chunk in chunks] == ["tokens", "tokens", "lines"]
    assert asyncio.run(machine.types("p")) == ["process.started", "step.completed", "process.completed"]


def test_a_follower_is_given_each_chunk_before_the_next_one_is_published() -> None:
    heard: list[str] = []
    said: list[tuple[str, int]] = []

    async def body(ctx: ProcessContext) -> None:
        async def ask() -> None:
            for token in ("a", "b", "c"):
                said.append((token, len(heard)))
                ctx.publish("tokens", token)
                await asyncio.sleep(0.01)

        await ctx.step(ask)

    async def main() -> None:
        machine = Machine(one(body))
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            async for chunk in handle.follow():
                heard.append(chunk.value)  # noqa: PERF401 - one by one, as they come

    simulate(main)
    assert said == [("a", 0), ("b", 1), ("c", 2)]
    assert heard == ["a", "b", "c"]


def test_steps_at_once_are_told_apart_by_their_keys() -> None:
    async def body(ctx: ProcessContext) -> None:
        async def ask(name: str) -> None:
            for number in range(3):
                ctx.publish("tokens", f"{name}{number}")
                await asyncio.sleep(0.1)

        async def branch(ctx: ProcessContext) -> None:
            await ctx.step(ask, "c")

        await ctx.gather(ctx.step(ask, "a", key="A"), ctx.step(ask, "b", key="B"))
        await ctx.branches(branch)

    chunks, _ = followed_to_the_end(body)
    for key, name in (("A", "a"), ("B", "b"), ("branches[0]/ask", "c")):
        assert [chunk.value for chunk in chunks if chunk.step == key] == [f"{name}{number}" for number in range(3)]
    assert [chunk.number for chunk in chunks] == list(range(1, 10))


def test_a_restart_shows_in_the_fence_and_finished_steps_are_not_said_again() -> None:
    async def body(ctx: ProcessContext) -> str:
        async def first() -> str:
            ctx.publish("tokens", "first")
            return "1"

        async def second() -> str:
            for number in range(3):
                ctx.publish("tokens", f"second {number} of attempt {ctx.attempt}")
                await asyncio.sleep(1)
            return "2"

        return await ctx.step(first) + await ctx.step(second)

    async def main() -> list[Chunk]:
        machine = Machine(one(body), lease_ttl_ms=3_000, renew_every_ms=1_000)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        mortal = machine.registry()
        serving = loop.create_task(machine.host(mortal).serve())
        mortal.die = lambda: loop.kill([*loop.family(serving), *(t for t in loop.pending() if t.get_name() == "p")])
        async with machine.host(work=False, name="looks") as looking:
            handle = await looking.start(looking.find_process("work"), id="p")
            following = loop.create_task(followed(handle))
            await machine.until(lambda: machine.status("p") == "running")
            await asyncio.sleep(1.5)
            mortal.kill()
            async with machine.host(name="w2"):
                return await following

    chunks = simulate(main)
    assert words(chunks) == [
        ("first", 1, "first", 0),
        ("second 0 of attempt 1", 1, "second", 0),
        ("second 1 of attempt 1", 1, "second", 0),
        ("second 0 of attempt 2", 2, "second", 0),
        ("second 1 of attempt 2", 2, "second", 0),
        ("second 2 of attempt 2", 2, "second", 0),
    ]


def test_what_is_published_between_operations_is_said_again_at_each_replay() -> None:
    async def body(ctx: ProcessContext) -> int:
        ctx.publish("lines", "waiting")
        return await ctx.wait(go)

    async def main() -> list[Chunk]:
        machine = Machine(one(body), parking=1.0)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            following = machine.keep(followed(handle))
            await asyncio.sleep(5)
            assert machine.status("p") == "waiting"
            await handle.signal(go, 1)
            return await following

    assert words(simulate(main)) == [("waiting", 1, None, 0), ("waiting", 2, None, 0)]


def test_a_run_that_has_lost_its_lease_is_heard_no_more() -> None:
    async def body(ctx: ProcessContext) -> str:
        async def ask() -> str:
            ctx.publish("tokens", "before")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                ctx.publish("tokens", "after")
                raise
            return "never"

        if ctx.attempt > 1:
            return "over"
        return await ctx.step(ask)

    def no_renewals(verb: str, number: int) -> Fault | None:
        return FailBefore() if verb == "Renew" else Delay(CALL_S)

    async def main() -> list[Chunk]:
        machine = Machine(one(body), lease_ttl_ms=3_000, renew_every_ms=1_000)
        registry = machine.registry(no_renewals)
        async with machine.host(registry) as host:
            chunks = await followed(await host.start(host.find_process("work"), id="p"))
            assert "lease_lost" in machine.faults.kinds
            return chunks

    assert words(simulate(main)) == [("before", 1, "ask", 0)]


@pytest.mark.parametrize("how", ["cancelled", "drained"])
def test_the_output_of_a_run_that_is_let_go_of_ends_before_its_code_does(how: str) -> None:
    ends_now, ended = [False], [False]

    async def body(ctx: ProcessContext) -> None:
        async def ask() -> None:
            ctx.publish("tokens", "before")
            while not ends_now[0]:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.1)
            ctx.publish("tokens", "after")
            ended[0] = True

        await ctx.step(ask)

    async def main() -> list[str]:
        machine, heard = Machine(one(body), cancel_grace_ms=1_000), list[Chunk]()
        machine.store.live_wire.follow("p", heard.append)
        host = machine.host()
        await host.open()
        handle = await host.start(host.find_process("work"), id="p")
        await machine.until(lambda: bool(heard))
        if how == "cancelled":
            await handle.cancel("enough")
            await machine.ended("p")
        else:
            await host.close(grace=timedelta(0))
            assert machine.status("p") == "running"
        channels = [chunk.channel for chunk in heard]
        ends_now[0] = True
        await machine.until(lambda: ended[0])
        await host.close()
        assert len(heard) == len(channels)
        return channels

    assert simulate(main) == ["tokens", RUN_OVER]


def test_a_follower_that_stops_listening_costs_the_process_nothing() -> None:
    async def body(ctx: ProcessContext) -> int:
        async def ask() -> int:
            for number in range(5_000):
                ctx.publish("tokens", number)
            await asyncio.sleep(1)
            ctx.publish("tokens", "end")
            return 5_000

        return await ctx.step(ask)

    async def main() -> tuple[Any, list[Chunk]]:
        machine = Machine(one(body))
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            chunks = handle.follow(most_waiting=10)
            first = await anext(chunks)
            outcome = await machine.ended("p")
            return value(outcome), [first, *[chunk async for chunk in chunks]]

    result, chunks = simulate(main)
    assert result == 5_000
    assert [chunk.value for chunk in chunks][-3:] == [4_998, 4_999, "end"]
    assert len(chunks) + sum(chunk.missed for chunk in chunks) == 5_001


# --- how following ends ----------------------------------------------------------------------------------------


def test_following_what_has_ended_or_says_nothing_ends_at_once_or_with_it() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.sleep(10)

    async def main() -> None:
        machine = Machine(one(body), parking=1.0)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            assert await followed(handle) == []
            assert machine.status("p") == "completed"
            before_s = asyncio.get_running_loop().time()
            assert await followed(handle) == []
            assert asyncio.get_running_loop().time() - before_s < 0.1

    simulate(main)


def test_following_ends_with_whatever_end_the_process_finds() -> None:
    async def body(ctx: ProcessContext) -> None:
        async def ask() -> None:
            ctx.publish("tokens", "a")
            await asyncio.sleep(1)
            raise ValueError("no")

        await ctx.step(ask)

    async def main() -> None:
        machine = Machine(one(body))
        async with machine.host() as host:
            work = host.find_process("work")
            assert words(await followed(await host.start(work, id="fails"))) == [("a", 1, "ask", 0)]
            handle = await host.start(work, id="is cancelled".replace(" ", "-"))
            following = machine.keep(followed(handle))
            await asyncio.sleep(0.5)
            await handle.cancel("enough")
            assert words(await following) == [("a", 1, "ask", 0)]
            assert [machine.status(id) for id in ("fails", "is-cancelled")] == ["failed", "cancelled"]

    simulate(main)


def test_following_what_is_not_there_or_left_by_its_caller_is_refused() -> None:
    async def main() -> None:
        machine = Machine(lambda host: None)
        async with machine.host() as host:
            with pytest.raises(UnknownProcess):
                await followed(host.get_handle("nobody"))
            outside = await host.register_external("letter", id="outside")
            following = machine.keep(followed(outside))
            await asyncio.sleep(1)
            await host.record_departure("outside")
            with pytest.raises(CallerDeparted):
                await following
            with pytest.raises(CallerDeparted):
                await followed(outside)

    simulate(main)


def test_a_follower_that_leaves_in_the_middle_is_forgotten() -> None:
    async def body(ctx: ProcessContext) -> None:
        ctx.publish("tokens", 1)
        ctx.publish("tokens", 2)
        await ctx.sleep(1)

    async def main() -> None:
        machine = Machine(one(body))
        async with machine.host() as host:
            chunks = (await host.start(host.find_process("work"), id="p")).follow()
            assert (await anext(chunks)).value == 1
            assert machine.store.live_wire.has_followers("p")
            await chunks.aclose()  # type: ignore[attr-defined]  # it is an asynchronous generator
            assert not machine.store.live_wire.has_followers("p")

    simulate(main)


@pytest.mark.parametrize("most_waiting", [0, -1, 100_001])
def test_a_bound_outside_of_what_is_allowed_is_refused_at_once(most_waiting: int) -> None:
    async def main() -> None:
        machine = Machine(lambda host: None)
        async with machine.host() as host:
            with pytest.raises(InvalidOption):
                host.get_handle("p").follow(most_waiting=most_waiting)
            with pytest.raises(InvalidOption):
                host.get_handle("p").follow("perdure.progress")

    simulate(main)


# --- what can be published -------------------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int


def test_what_has_a_json_form_and_is_small_enough_is_published_as_it_is() -> None:
    values = ["text", 1, 2.5, None, True, {"b": [1], "a": {}}, Point(3), "x" * (64 * 1024 - 2)]

    async def body(ctx: ProcessContext) -> None:
        await ctx.sleep(1)
        for each in values:
            ctx.publish("all", each)
        await ctx.sleep(1)

    chunks, _ = followed_to_the_end(body)
    assert [chunk.value for chunk in chunks] == [*values[:6], {"x": 3}, values[7]]


@pytest.mark.parametrize(
    ("unfit", "said"),
    [("x" * (64 * 1024 - 1), "65537 bytes"), (object(), "without a JSON form"), (float("nan"), "nan"), ("\0", "NUL")],
    ids=["too large", "object", "nan", "nul"],
)
def test_what_cannot_be_published_is_refused_where_it_is_said(unfit: object, said: str) -> None:
    async def body(ctx: ProcessContext) -> str:
        try:
            ctx.publish("tokens", unfit)
        except InvalidPayload as refused:
            return str(refused)
        return "it was taken"

    outcome, _ = run(body)
    assert said in value(outcome)


# --- threads ---------------------------------------------------------------------------------------------------


def test_plain_functions_and_their_steps_publish_from_their_threads() -> None:
    threads: set[int] = set()

    async def main() -> tuple[list[Chunk], int]:
        host = Host("", registry=cast("Registry", MemoryRegistry()))

        @host.process(recovery="rerunnable")
        def work(ctx: SyncContext) -> int:
            def count() -> int:
                threads.add(threading.get_ident())
                for number in range(1_000):
                    ctx.publish("numbers", number)
                return 1_000

            async def on_loop() -> None:
                threads.add(threading.get_ident())
                ctx.publish("numbers", "on the loop")

            ctx.publish("numbers", "in the process's own thread")
            ctx.gather(ctx.later.step(count, key="a"), ctx.later.step(count, key="b"))
            ctx.step(on_loop)
            return ctx.step(count)

        async with asyncio.timeout(60), host:
            handle = await host.start(work, id="p")
            return await followed(handle, most_waiting=100_000), await handle.result()

    chunks, result = asyncio.run(main())
    assert result == 1_000
    assert [chunk.number for chunk in chunks] == list(range(1, 3_003))
    for step in ("a", "b", "count"):
        assert [chunk.value for chunk in chunks if chunk.step == step] == list(range(1_000))
    assert [chunk.value for chunk in chunks if chunk.step is None] == ["in the process's own thread"]
    assert [chunk.value for chunk in chunks if chunk.step == "on_loop"] == ["on the loop"]
    assert len(threads) >= 2


def test_a_thread_that_outlives_its_process_is_heard_no_more() -> None:
    async def main() -> list[Chunk]:
        may_go_on, done = threading.Event(), threading.Event()
        host = Host("", registry=cast("Registry", MemoryRegistry()))

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext) -> str:
            def slow() -> None:
                ctx.publish("tokens", "in time")
                may_go_on.wait(20)
                ctx.publish("tokens", "too late")
                ctx.progress(1)
                done.set()

            try:
                await ctx.step(slow, key="slow", timeout=0.05)
            except Exception as error:
                return type(error).__name__
            return "no timeout"

        async with asyncio.timeout(60), host:
            handle = await host.start(work, id="p")
            chunks = await followed(handle)
            assert await handle.result() == "StepFailed"
            may_go_on.set()
            assert await asyncio.to_thread(done.wait, 20)
            assert await followed(handle) == []
            return chunks

    assert words(asyncio.run(main())) == [("in time", 1, "slow", 0)]
