from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Host, ProcessContext, Retry, SyncContext
from perdure.errors import ProcessAbandoned, ProcessCancelled, ProcessFailed, RegistrationConflict
from perdure.model.outcomes import Cancelled, Completed, Failed
from perdure.model.queries import Filter
from perdure.model.registration import Registration
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import elapse, host_over, loop_turns, soon
from perdure.transitions.commands import Register
from tests.runtime.simulated import simulate


@dataclass
class Question:
    topic: str
    depth: int = 1


@dataclass
class Report:
    text: str
    pages: list[int]


URLS = ["memory://", "sqlite:///{}/work.db"]


def tell(url: str, story: Callable[[Host], Awaitable[None]]) -> None:
    async def main() -> None:
        host = Host(url)
        async with asyncio.timeout(30):
            await story(host)

    asyncio.run(main())


@pytest.mark.parametrize("url", URLS)
def test_a_handle_gives_back_the_typed_value_also_from_another_host(url: str, tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        @host.process(recovery="rerunnable")
        async def research(ctx: ProcessContext, question: Question) -> Report:
            return Report(f"{question.topic} by {ctx.process_id}", list(range(question.depth)))

        async with host:
            run = await host.start(research, Question("durability", 3), id="research-42")
            assert await run.result() == Report("durability by research-42", [0, 1, 2])
            assert await run.outcome() == Completed(raw({"pages": [0, 1, 2], "text": "durability by research-42"}))
            untyped = host.get_handle("research-42")
            assert await untyped.result() == {"pages": [0, 1, 2], "text": "durability by research-42"}
            assert await host.get_handle("research-42", research).result() == await run.result()
            assert (await run.status(), (await run.explain()).verdict) == ("completed", "ended")

    tell(url.format(tmp_path), story)


@pytest.mark.parametrize("url", URLS)
def test_a_start_by_the_same_id_is_the_same_process_and_other_content_a_conflict(url: str, tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        runs = []

        @host.process(recovery="rerunnable")
        async def count(ctx: ProcessContext, number: int) -> int:
            runs.append(number)
            return number

        async with host:
            handles = await asyncio.gather(*(host.start(count, 1, id="one") for _ in range(50)))
            assert [await handle.result() for handle in handles] == [1] * 50
            assert runs == [1]
            with pytest.raises(RegistrationConflict) as refused:
                await host.start(count, 2, id="one")
            assert refused.value.differing == ("input",)
            assert await host.registry.count() == 1

    tell(url.format(tmp_path), story)


@pytest.mark.parametrize("url", URLS)
def test_many_are_started_at_once_and_idempotently_by_their_ids(url: str, tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        @host.process(recovery="rerunnable")
        async def double(ctx: ProcessContext, number: int) -> int:
            return number * 2

        async with host:
            ids = [f"n-{number}" for number in range(300)]
            handles = await host.start_many(double, range(300), ids=ids)
            await host.start_many(double, range(300), ids=ids)
            assert [await handle.result() for handle in handles] == [number * 2 for number in range(300)]
            assert await host.registry.count() == 300

    tell(url.format(tmp_path), story)


def test_a_delay_a_deadline_and_a_retry_keep_their_times() -> None:
    async def story(kit: Kit) -> None:
        host = host_over(kit)
        began_ms = kit.now_ms
        started: dict[str, list[int]] = {}

        @host.process(recovery="rerunnable", retry=Retry(3, initial=timedelta(seconds=10), jitter=0.0))
        async def work(ctx: ProcessContext) -> str:
            started.setdefault(ctx.process_id, []).append(kit.now_ms - began_ms)
            if ctx.process_id == "slow":
                await asyncio.Event().wait()
            if ctx.process_id == "fails":
                raise ValueError("no")
            return "done"

        async with host:
            delayed = await host.start(work, id="delayed", delay=timedelta(minutes=1))
            slow = await host.start(work, id="slow", deadline=30)
            late = await host.start(work, id="late", delay=60, deadline=45)
            fails = await host.start(work, id="fails")
            await elapse(kit, 70)
            assert await delayed.result() == "done"
            outcomes = [await slow.outcome(), await late.outcome()]
            assert [outcome.error.code for outcome in outcomes if isinstance(outcome, Failed)] == ["deadline"] * 2
            ended = [(await handle.record()).state.finished_at_ms for handle in (slow, late)]
            assert ended == [began_ms + 30_000, began_ms + 45_000]
            with pytest.raises(ProcessFailed, match="ValueError: no"):
                await fails.result()
        assert started == {"slow": [0], "fails": [0, 10_000, 30_000], "delayed": [60_000]}

    simulate(story)


def test_a_cancellation_reaches_the_code_and_the_handle_says_who_asked() -> None:
    async def story(kit: Kit) -> None:
        host, cleaned = host_over(kit), []

        @host.process(recovery="rerunnable")
        async def patient(ctx: ProcessContext) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(ctx.cancel_reason)

        async with host:
            run = await host.start(patient, id="p")
            await loop_turns()
            await run.cancel("no longer needed", by="anna")
            with pytest.raises(ProcessCancelled, match=r"no longer needed \(asked by anna\)"):
                await soon(run.result())
            assert cleaned == ["no longer needed"]
            again = await run.cancel("no longer needed")
            assert again.outcome == Cancelled("no longer needed", "anna")

    simulate(story)


def test_an_abandoned_process_says_who_gave_it_up() -> None:
    async def story(kit: Kit) -> None:
        async with host_over(kit, work=False) as host:
            await kit.start("p", recovery="owner_bound")
            run = host.get_handle("p")
            assert (await run.abandon(by="anna", reason="the machine is gone")).status == "running"
            await elapse(kit, 15)
            await run.abandon(by="anna", reason="the machine is gone")
            with pytest.raises(ProcessAbandoned, match="reconciled_request: anna asked: the machine is gone"):
                await run.result()

    simulate(story)


def test_an_external_process_is_completed_by_its_owner() -> None:
    async def story(kit: Kit) -> None:
        async with host_over(kit) as host:
            run = await host.register_external("invoice", {"amount": 3}, id="invoice-1")
            assert (await run.explain()).verdict == "external"
            waiting = asyncio.ensure_future(run.result())
            await loop_turns()
            await host.complete("invoice-1", {"paid": True}, owner="bank")
            assert await waiting == {"paid": True}
            standing = await host.complete("invoice-1", {"paid": False}, owner="bank")
            assert standing.outcome == Completed(raw({"paid": True}))

    simulate(story)


@pytest.mark.parametrize("url", URLS)
def test_a_plain_function_runs_in_a_thread_of_the_host(url: str, tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        @host.process(recovery="rerunnable")
        def blocking(ctx: SyncContext, number: int) -> str:
            ctx.emit("progress", {"half": number / 2})
            return threading.current_thread().name

        async with host:
            run = await host.start(blocking, 3)
            assert "MainThread" not in await run.result()
            events = [event.type async for event in run.events()]
            assert events == ["process.started", "progress", "process.completed"]

    tell(url.format(tmp_path), story)


def test_a_thread_that_was_told_to_stop_sees_it_when_it_asks() -> None:
    async def story(host: Host) -> None:
        entered, told = threading.Event(), threading.Event()

        @host.process(recovery="rerunnable")
        def blocking(ctx: SyncContext) -> None:
            entered.set()
            told.wait(20)
            ctx.check_cancelled()

        async with host:
            run = await host.start(blocking)
            await asyncio.to_thread(entered.wait, 20)
            await run.cancel("enough")
            told.set()
            assert await run.outcome() == Cancelled("enough")

    tell("memory://", story)


def test_two_hosts_in_one_program_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        url = f"sqlite:///{tmp_path}/work.db"
        first, second = Host(url, name="first"), Host(url, name="second")

        @first.process(recovery="rerunnable")
        async def left(ctx: ProcessContext) -> str:
            return "left"

        @second.process(recovery="rerunnable")
        async def right(ctx: ProcessContext) -> str:
            return "right"

        async with asyncio.timeout(30), first, second:
            runs = [await first.start(left, id="l"), await second.start(right, id="r")]
            assert [await run.result() for run in runs] == ["left", "right"]
            assert await second.get_handle("l", left).result() == "left"
            declared = Registration(id="r-2", definition=right.definition, recovery=right.recovery)
            await first.registry.execute(Register(process_id="r-2", registration=declared))
            assert await first.get_handle("r-2").result() == "right"  # the first doesn't know it: the second runs it
            owner = (await first.get_handle("r-2").record()).state.started
            assert owner is not None
            assert owner.owner.name == "second"

    asyncio.run(story())


def test_a_closed_host_gives_its_work_back_and_another_one_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        url = f"sqlite:///{tmp_path}/work.db"
        attempts = []
        for number in range(2):
            host = Host(url)

            @host.process(recovery="rerunnable", name="work")
            async def work(ctx: ProcessContext) -> str:
                attempts.append(ctx.attempt)
                if ctx.attempt == 1:
                    await asyncio.Event().wait()
                return "done"

            async with asyncio.timeout(30):
                await host.open()
                run = await host.start(work, id="p")
                if number == 0:
                    while not attempts:
                        await loop_turns()
                    (drained,) = await host.close(grace=timedelta(0))
                    assert (drained.process_id, drained.became) == ("p", "released")
                else:
                    assert await run.result() == "done"
                    assert await host.registry.count(Filter(statuses=("completed",))) == 1
                    await host.close()
        assert attempts == [1, 2]

    asyncio.run(story())
