"""Section C, failures: what the runtime makes of code that raises, and of an engine that fails by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from perdure.contract.ports import WorkerFault
from perdure.engines.python.context import ProcessContext
from perdure.errors import InfrastructureFailure, NotPermitted
from perdure.host import Host
from perdure.model.events import Event
from perdure.model.outcomes import Cancelled, Completed, ErrorDetail, Failed, ProcessAwaitOutput
from perdure.model.registration import RetryPolicy
from perdure.runtime.options import WorkerOptions
from perdure.testing.conformance.case import CaseFailed, case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import WORK, Kit, raw
from perdure.transitions.commands import ScheduleRetry

GROWING = RetryPolicy(max_attempts=3, initial_ms=1_000, factor=4.0, jitter=0.25)
SOON_S = 20.0

Body = Callable[[ProcessContext], Awaitable[object]]


class Faults:
    """Keeps the faults that a host reports."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    async def emit(self, event: Event) -> None:
        return

    def report(self, fault: WorkerFault) -> None:
        self.kinds.append(fault.kind)


@asynccontextmanager
async def running(
    kit: Kit, body: Body, faults: Faults | None = None, options: WorkerOptions | None = None
) -> AsyncIterator[Host]:
    """A host over the kit's registry that runs WORK with this body."""
    host = Host("", name="w", registry=kit.registry, clock=kit.clock, ids=kit.ids, sink=faults, options=options)

    @host.process(recovery="rerunnable", name=WORK.name, version=WORK.version)
    async def work(ctx: ProcessContext) -> Any:
        return await body(ctx)

    async with host:
        yield host


async def ended(host: Host, id: str) -> ProcessAwaitOutput:
    """How the process ended; the case fails if it doesn't end soon."""
    async with asyncio.timeout(SOON_S):
        return await host.get_handle(id).outcome()


async def fails_twice(ctx: ProcessContext) -> object:
    if ctx.attempt <= 2:
        raise ValueError(f"failure {ctx.attempt}")
    return ctx.attempt


async def raises(ctx: ProcessContext) -> object:
    raise KeyError("missing")


async def stands(kit: Kit, id: str, status: str, attempt: int) -> None:
    """Wait until the process has that status at that attempt; the host writes it from a task of its own."""

    async def look() -> bool:
        record = await kit.get(id)
        return (record.status, record.attempt) == (status, attempt)

    await kit.until(look, f"{id} is {status} at attempt {attempt}")


async def retries(kit: Kit, id: str) -> list[dict[str, object]]:
    """The retries in its log; the delay from each event to its due time is added as `delay_ms`."""
    found = []
    for event in await kit.log(id):
        if event.type == "process.retry_scheduled":
            said = msgspec.json.decode(event.payload)
            found.append({**said, "delay_ms": said["due_at_ms"] - event.at_ms})
    return found


@case("C.8", "code that fails twice is retried twice, with growing delays inside the jitter, and then completes")
async def retried_until_it_completes(kit: Kit) -> None:
    await kit.register("p", retry=GROWING)
    async with running(kit, fails_twice) as host:
        for failures in (1, 2):
            await stands(kit, "p", "pending", failures)
            state = (await kit.get("p")).state
            expect_equal(state.failures, failures, "the failures")
            report = await host.claim_and_run_pending("before the retry is due")
            expect_equal(report.admitted, (), "the rows admitted before the retry is due")
            kit.clock.advance(((state.due_at_ms or 0) - kit.now_ms) / 1000)
            await host.claim_and_run_pending("the retry is due")
        expect_equal(await ended(host, "p"), Completed(raw(3)), "the outcome")
    said = await retries(kit, "p")
    expect_equal([r["failures"] for r in said], [1, 2], "the failures in the log")
    first, second = (int(str(r["delay_ms"])) for r in said)
    expect(750 <= first <= 1_250, f"the first delay is 1 s ± 25 %, found {first} ms")
    expect(3_000 <= second <= 5_000, f"the second delay is 4 s ± 25 %, found {second} ms")
    expect_equal((await kit.get("p")).state.deaths, 0, "the deaths")


@case("C.8b", "the last failure allowed, and a non-retryable one, fail the process with all that is known")
async def failing_for_good(kit: Kit) -> None:
    await kit.register("last", retry=RetryPolicy(max_attempts=1))
    await kit.register("never", retry=RetryPolicy(max_attempts=9, non_retryable=("KeyError",)))
    await kit.register("plain")
    async with running(kit, raises) as host:
        for id in ("last", "never", "plain"):
            outcome = await ended(host, id)
            if not isinstance(outcome, Failed):
                raise CaseFailed(f"{id} should have failed, found {outcome!r}")
            error = outcome.error
            expect_equal((error.type, error.message, error.attempt), ("KeyError", "'missing'", 1), f"the error of {id}")
            expect("raise KeyError" in (error.traceback or ""), "the traceback shows where it was raised")
            expect_equal(await kit.types(id), ["process.started", "process.failed"], f"the log of {id}")


@case("C.8c", "a retry beyond its policy, or without one, is refused")
async def retries_beyond_the_policy(kit: Kit) -> None:
    for id, retry in (("none", None), ("one", RetryPolicy(max_attempts=1))):
        claimed = await kit.start(id, retry=retry)
        command = ScheduleRetry(
            process_id=id, execution=kit.execution(claimed), error=ErrorDetail("E"), due_at_ms=kit.now_ms
        )
        with refusal(NotPermitted, f"a retry of {id}"):
            await kit.registry.execute(command)
        expect_equal((await kit.get(id)).status, "running", "the status")
        await kit.complete(id, claimed)


@case("C.10", "a failure of the engine itself never fails the process: the row is given back and tried again later")
async def infrastructure_failure(kit: Kit) -> None:
    broken, faults = True, Faults()

    async def body(ctx: ProcessContext) -> object:
        if broken:
            raise InfrastructureFailure("the engine is down")
        return ctx.process_id

    await kit.register("p", retry=RetryPolicy())
    async with running(kit, body, faults, WorkerOptions(infrastructure_backoff_ms=1_000)) as host:

        async def given_back() -> bool:
            lease = await kit.registry.get_lease("p")
            return lease is not None and lease.released

        await kit.until(given_back, "the lease is given back")
        state = (await kit.get("p")).state
        expect_equal((state.status, state.failures, state.deaths), ("running", 0, 0), "status, failures and deaths")

        async def reported() -> bool:
            return bool(faults.kinds)

        await kit.until(reported, "the fault is reported")
        expect_equal(faults.kinds, ["infrastructure"], "the faults reported")
        report = await host.claim_and_run_pending("during the backoff")
        expect_equal(report.admitted, (), "the rows admitted during the backoff")
        broken = False
        kit.clock.advance(1)
        await host.claim_and_run_pending("the backoff is over")
        expect_equal(await ended(host, "p"), Completed(raw("p")), "the outcome")
    expect_equal((await kit.get("p")).state.deaths, 0, "the deaths")


@case("C.3j", "code that is cancelled while it runs sees it, cleans up, and the outcome says who and why")
async def cancelled_code_cleans_up(kit: Kit) -> None:
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def body(ctx: ProcessContext) -> object:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            await ctx.emit("cleaned")
            cleaned.set()
        return None

    await kit.register("p")
    async with running(kit, body, options=WorkerOptions(lease_ttl_ms=300, renew_every_ms=100)) as host:
        await entered.wait()
        await kit.cancel("p", "enough", "someone")

        async def told() -> bool:
            kit.clock.advance(0.001)  # at the pace of the keeper's own thread, so that the lease is kept
            return cleaned.is_set()

        await kit.until(told, "the code sees the cancellation by a renewal")
        expect_equal(await ended(host, "p"), Cancelled("enough", "someone"), "the outcome")
    log = ["process.started", "process.cancel_requested", "cleaned", "process.cancelled"]
    expect_equal(await kit.types("p"), log, "the log")


CASES = (
    cancelled_code_cleans_up,
    retried_until_it_completes,
    failing_for_good,
    retries_beyond_the_policy,
    infrastructure_failure,
)
