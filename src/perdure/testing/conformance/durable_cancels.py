"""Section G, cancellation: what the code makes of it, and what becomes of the process then. Each case is told to an
`async def` process and to a plain one in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from perdure.contract.registry import Registry
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.engines.python.sync_context import SyncContext
from perdure.host import Host
from perdure.model.outcomes import Cancelled, Completed, Failed, Outcome, ProcessAwaitOutput
from perdure.runtime.options import WorkerOptions
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.durable_world import SOON_S, go, keys
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import Sink
from perdure.testing.faults import Delay, FaultyRegistry

KINDS = ("async", "plain")
IN_MEMORY_S, AT_ONCE_S = 1_000.0, 0.01
"""How long a process waits in memory before it is suspended."""
RENEW_S = 5.0

AsyncBody = Callable[[ProcessContext], Awaitable[Any]]
PlainBody = Callable[[SyncContext], Any]


class Told:
    """A host with one process of each kind, the faults it reports, and what the bodies note."""

    def __init__(self, kit: Kit, host: Host, sink: Sink) -> None:
        self.kit, self.host, self._sink = kit, host, sink

    def reported(self) -> list[tuple[str | None, str]]:
        """(process, what was said) of every swallowed cancellation that was reported since this was last asked."""
        faults, self._sink.faults = self._sink.faults, []
        return [(fault.process_id, fault.message) for fault in faults if fault.kind == "swallowed_cancel"]

    async def waits(self, kind: str) -> None:
        """Start the process of that kind under its kind's name, and wait until its code waits for something."""
        await self.host.start(self.host.find_process(kind), id=kind)

        async def look() -> bool:
            worker = self.host.worker
            assert worker is not None
            in_memory = kind in worker.in_flight and worker.free_permits == worker.options.concurrency
            return in_memory or (await self.kit.get(kind)).status == "waiting"

        await self.kit.until(look, f"the {kind} process waits")

    async def cancelled(self, kind: str) -> ProcessAwaitOutput:
        """How it ends once somebody has asked it to stop."""
        await self.host.get_handle(kind).cancel("enough", by="someone")
        return await self.ended(kind)

    async def ended(self, kind: str) -> ProcessAwaitOutput:
        async with asyncio.timeout(SOON_S):
            return await self.host.get_handle(kind).outcome()


@asynccontextmanager
async def told(
    kit: Kit, body: AsyncBody, plain_body: PlainBody, *, parking: float = AT_ONCE_S, grace_ms: int = 30_000,
    registry: Registry | None = None,
) -> AsyncIterator[Told]:  # fmt: skip
    sink = Sink()
    host = Host(
        "", name="w", registry=registry or kit.registry, clock=kit.clock, ids=kit.ids, parking=parking, sink=sink,
        options=WorkerOptions(cancel_grace_ms=grace_ms, renew_every_ms=round(RENEW_S * 1000)),
    )  # fmt: skip

    @host.process(recovery="rerunnable", name="async", signals=[go], retry=Retry(max_attempts=3))
    async def asynchronous(ctx: ProcessContext) -> Any:
        return await body(ctx)

    @host.process(recovery="rerunnable", name="plain", signals=[go], retry=Retry(max_attempts=3))
    def plain(ctx: SyncContext) -> Any:
        return plain_body(ctx)

    await host.open()
    try:
        yield Told(kit, host, sink)
    finally:
        await host.close(grace=timedelta(0))


def expect_outcome(found: ProcessAwaitOutput, expected: Outcome, kind: str) -> None:
    expect_equal(found, expected, f"the outcome of the {kind} process")


def same(what: str) -> str:
    return what


@case("G.9b", "told while it waits in memory, code cleans up by steps, and the outcome says who asked and why")
async def clean_up_by_steps(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.wait(go)
        finally:
            await ctx.step(same, "up", key="cleaned")

    def plain_body(ctx: SyncContext) -> None:
        try:
            ctx.wait(go)
        finally:
            ctx.step(same, "up", key="cleaned")

    async with told(kit, body, plain_body, parking=IN_MEMORY_S) as world:
        for kind in KINDS:
            await world.waits(kind)
            expect_outcome(await world.cancelled(kind), Cancelled("enough", "someone"), kind)
            expect_equal(await keys(kit, "step.", kind), ["cleaned"], f"the steps of the {kind} process")
            expect_equal(await keys(kit, "cancel.", kind), ["wait:go"], f"where the {kind} process was told")
        expect_equal(world.reported(), [], "what is reported")


@case("G.9c", "a request that somebody else wrote is heard of at a renewal, and the outcome says who asked and why")
async def asked_from_elsewhere(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.wait(go)

    def plain_body(ctx: SyncContext) -> None:
        ctx.wait(go)

    async with told(kit, body, plain_body, parking=IN_MEMORY_S) as world:
        for kind in KINDS:
            await world.waits(kind)
            await kit.cancel(kind, "too late", "another program")
            kit.clock.advance(RENEW_S)
            expect_outcome(await world.ended(kind), Cancelled("too late", "another program"), kind)
        expect_equal(world.reported(), [], "what is reported")


@case("G.9d", "clean-up that outlasts its bound is cut off and reported, and enters and records nothing afterwards")
async def cut_off(kit: Kit) -> None:
    entered: list[str] = []
    refused: list[str] = []
    let_go = threading.Event()

    def note(what: str) -> str:
        entered.append(what)
        return what

    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.wait(go)
        except asyncio.CancelledError:
            await ctx.step(note, "in time", key="in-time")
            while not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await kit.pause(0.01)
            try:
                await ctx.step(note, "too late", key="too-late")
            except Exception as error:
                refused.append(type(error).__name__)

    def plain_body(ctx: SyncContext) -> None:
        try:
            ctx.wait(go)
        except asyncio.CancelledError:
            ctx.step(note, "in time", key="in-time")
            let_go.wait(SOON_S)
            try:
                ctx.step(note, "too late", key="too-late")
            except Exception as error:
                refused.append(type(error).__name__)

    async with told(kit, body, plain_body, grace_ms=1_000) as world:
        for kind in KINDS:
            await world.waits(kind)
            expect_outcome(await world.cancelled(kind), Cancelled("enough", "someone"), kind)
            let_go.set()

            async def heard() -> bool:
                return len(refused) == 1

            await kit.until(heard, f"what the {kind} process still asks for is answered")
            said = "the code has not ended 1000 ms after it was told to stop: enough (asked by someone)"
            expect_equal(world.reported(), [(kind, said)], "what is reported")
            expect_equal(entered, ["in time"], f"the steps that the {kind} process entered")
            expect_equal(refused, ["LeaseSuperseded"], f"what the {kind} process was answered")
            expect_equal(await keys(kit, "step.", kind), ["in-time"], f"the steps of the {kind} process")
            entered.clear()
            refused.clear()
            let_go.clear()


@case("G.9e", "code that makes a value of it has completed with that value, and is reported")
async def made_a_value_of_it(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> str:
        try:
            await ctx.wait(go)
        except asyncio.CancelledError:
            return "all the same"
        return "not told"

    def plain_body(ctx: SyncContext) -> str:
        try:
            ctx.wait(go)
        except asyncio.CancelledError:
            return "all the same"
        return "not told"

    await _swallowed(kit, body, plain_body, Completed(raw("all the same")), "returned a value")


@case("G.9f", "code that goes on with further operations does them, its end stands, and it is reported")
async def went_on(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> list[Any]:
        with contextlib.suppress(asyncio.CancelledError):
            await ctx.wait(go)
        await ctx.sleep(0)
        return [await ctx.step(same, "one"), await ctx.step(same, "two")]

    def plain_body(ctx: SyncContext) -> list[Any]:
        with contextlib.suppress(asyncio.CancelledError):
            ctx.wait(go)
        ctx.sleep(0)
        return [ctx.step(same, "one"), ctx.step(same, "two")]

    await _swallowed(kit, body, plain_body, Completed(raw(["one", "two"])), "returned a value")
    for kind in KINDS:
        expect_equal(await keys(kit, "step.", kind), ["same", "same#2"], f"the steps of the {kind} process")


async def _swallowed(kit: Kit, body: AsyncBody, plain_body: PlainBody, expected: Outcome, did: str) -> None:
    async with told(kit, body, plain_body) as world:
        for kind in KINDS:
            await world.waits(kind)
            expect_outcome(await world.cancelled(kind), expected, kind)
            said = f"the code {did} after it was told to stop: enough (asked by someone)"
            expect_equal(world.reported(), [(kind, said)], "what is reported")
            request = (await kit.get(kind)).state.cancel_request
            asked = None if request is None else (request.reason, request.by)
            expect_equal(asked, ("enough", "someone"), f"who asked the {kind} process, and why, by its record")


@case("G.9g", "code that makes another error of it has failed with that error, is not retried, and is reported")
async def made_an_error_of_it(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.wait(go)
        except asyncio.CancelledError:
            raise ValueError("half done") from None

    def plain_body(ctx: SyncContext) -> None:
        try:
            ctx.wait(go)
        except asyncio.CancelledError:
            raise ValueError("half done") from None

    async with told(kit, body, plain_body) as world:
        for kind in KINDS:
            await world.waits(kind)
            outcome = await world.cancelled(kind)
            expect(isinstance(outcome, Failed), f"the {kind} process has failed, found {outcome!r}")
            assert isinstance(outcome, Failed)
            error = (outcome.error.type, outcome.error.message, outcome.error.attempt)
            expect_equal(error, ("ValueError", "half done", 1), f"the error of the {kind} process")
            said = "the code raised ValueError after it was told to stop: enough (asked by someone)"
            expect_equal(world.reported(), [(kind, said)], "what is reported")


@case("G.9h", "code that waits again once it was told is not suspended, and is cut off at its bound")
async def waited_again(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await ctx.wait(go)
        await ctx.wait(go, key="again")

    def plain_body(ctx: SyncContext) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            ctx.wait(go)
        ctx.wait(go, key="again")

    async with told(kit, body, plain_body, grace_ms=300) as world:
        for kind in KINDS:
            await world.waits(kind)
            expect_outcome(await world.cancelled(kind), Cancelled("enough", "someone"), kind)
            types = await kit.types(kind)
            told_at = types.index("cancel.delivered")
            expect("process.waiting" not in types[told_at:], f"the {kind} process is not suspended again ({types})")
            expect_equal(len(world.reported()), 1, "the number of reports")


@case("G.9i", "code that has ended before it could be told keeps its result, and nobody is accused")
async def ended_before_it_was_told(kit: Kit) -> None:
    entered, may_end = threading.Event(), threading.Event()

    async def body(ctx: ProcessContext) -> str:
        return await ctx.step(same, "recorded")

    def plain_body(ctx: SyncContext) -> str:
        entered.set()
        may_end.wait(SOON_S)
        return "computed"

    slow = FaultyRegistry(kit.registry, lambda verb, number: Delay(1.0) if verb == "AppendEvent" else None, kit.clock)
    async with told(kit, body, plain_body, registry=slow) as world:
        await world.host.start(world.host.find_process("async"), id="async")

        async def is_recording() -> bool:
            return slow.calls["AppendEvent"] == 1

        await kit.until(is_recording, "the result of the step is being recorded")
        await world.host.get_handle("async").cancel("enough", by="someone")
        kit.clock.advance(1.0)
        expect_outcome(await world.ended("async"), Completed(raw("recorded")), "async")

        await world.host.start(world.host.find_process("plain"), id="plain")

        async def is_entered() -> bool:
            return entered.is_set()

        await kit.until(is_entered, "the thread is at work")
        await world.host.get_handle("plain").cancel("enough", by="someone")
        may_end.set()
        expect_outcome(await world.ended("plain"), Completed(raw("computed")), "plain")
        expect_equal(world.reported(), [], "what is reported")


CASES = (
    clean_up_by_steps, asked_from_elsewhere, cut_off, made_a_value_of_it, went_on, made_an_error_of_it, waited_again,
    ended_before_it_was_told,
)  # fmt: skip
