"""Section C, requests: cancelling and abandoning a process, in every situation it can be in."""

from __future__ import annotations

import msgspec

from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail
from perdure.model.record import ProcessRecord
from perdure.model.registration import RetryPolicy
from perdure.model.waits import SignalWait, TimerWait
from perdure.testing.conformance.case import case, expect, expect_equal, present
from perdure.testing.conformance.kit import Kit, raw
from perdure.transitions.commands import Claimed, ClaimToSettle, Receipt, ScheduleRetry
from perdure.transitions.explain import explain

ANYTHING = msgspec.Raw(b"{}")
REQUESTED = "process.cancel_requested"


async def verdict(kit: Kit, id: str) -> str:
    """Why the process is not running, in one word."""
    return explain(await kit.get(id), await kit.registry.get_lease(id), kit.clock.now()).verdict


async def due_for_settling(kit: Kit) -> list[str]:
    """The rows that a settling pass must look at now."""
    return list(await kit.registry.due_for_settling(kit.clock.now(), (), 100))


async def settle_abandoned(kit: Kit, id: str) -> Receipt:
    """What a settling pass does with an abandon request."""
    command = ClaimToSettle(process_id=id, why="reconciled_request", by=kit.owner("sweeper"))
    return await kit.registry.execute(command)


async def retry_at(kit: Kit, claimed: Claimed, due_at_ms: int) -> None:
    await kit.registry.execute(
        ScheduleRetry(
            process_id=claimed.record.id, execution=kit.execution(claimed), error=ErrorDetail("E"), due_at_ms=due_at_ms
        )
    )


def expect_cancelled(record: ProcessRecord, reason: str, by: str | None) -> None:
    expect_equal((record.status, record.outcome), ("cancelled", Cancelled(reason, by)), "status and outcome")


@case("C.3", "a process cancelled before its first start has ended, and is never executed")
async def cancel_before_the_start(kit: Kit) -> None:
    for n, recovery in enumerate(("rerunnable", "owner_bound")):
        id = f"p{n}"
        await kit.register(id, recovery=recovery, delay_ms=n)
        receipt = await kit.cancel(id, "enough", "someone")
        expect_cancelled(receipt.record, "enough", "someone")
        expect_equal(await kit.types(id), [REQUESTED, "process.cancelled"], "the log")
    kit.clock.advance(60)
    expect_equal((await kit.claim()).claimed, (), "the rows granted")


@case("C.3b", "a running process is marked, its owner is told at its renewal and writes the end, with who and why")
async def cancel_while_running(kit: Kit) -> None:
    claimed = await kit.start("p")
    receipt = await kit.cancel("p", "enough", "someone")
    expect_equal((receipt.record.status, receipt.record.outcome), ("running", None), "the record")
    (renewal,) = await kit.renew(claimed.lease.key)
    told = (renewal.held, renewal.cancel_reason, renewal.cancel_by)
    expect_equal(told, (True, "enough", "someone"), "what the owner is told")
    await kit.append("p", "cleaned", execution=kit.execution(claimed))
    await kit.complete("p", claimed, Cancelled("enough", "someone"))
    expect_cancelled(await kit.get("p"), "enough", "someone")


@case("C.3c", "a suspended process that is cancelled is due at once, and resumes knowing it")
async def cancel_while_suspended(kit: Kit) -> None:
    claimed = await kit.start("p", signals={"go": ANYTHING})
    await kit.suspend(claimed, SignalWait("go", 1), TimerWait(kit.now_ms + 3_600_000))
    expect_equal((await kit.cancel("p", "enough")).record.status, "waiting", "the status")
    resumed = await kit.claim_one("b")
    request = present(resumed.record.state.cancel_request, "the resumed record carries the request")
    expect_equal((request.reason, resumed.record.attempt), ("enough", 1), "reason and attempt")
    again = await kit.suspend(resumed, SignalWait("go", 1))
    expect_equal(again.answer, "still_runnable", "the answer to another suspension")


@case("C.3d", "a process cancelled between retries has ended")
async def cancel_between_retries(kit: Kit) -> None:
    claimed = await kit.start("p", retry=RetryPolicy())
    await retry_at(kit, claimed, kit.now_ms + 60_000)
    expect_cancelled((await kit.cancel("p", "enough")).record, "enough", None)


@case("C.3e", "asking again ends a process whose code raised after the first request, between its retries")
async def cancel_again_between_retries(kit: Kit) -> None:
    claimed = await kit.start("p", retry=RetryPolicy())
    await kit.cancel("p", "enough", "someone")
    await retry_at(kit, claimed, kit.now_ms + 60_000)
    expect_cancelled((await kit.cancel("p", "enough", "someone")).record, "enough", "someone")
    expect_equal((await kit.types("p")).count(REQUESTED), 1, "the number of requests in the log")


@case("C.3f", "a lapsed rerunnable process that is cancelled tells its next claimer")
async def cancel_while_lapsed(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p"))
    expect_equal((await kit.cancel("p", "enough")).record.status, "running", "the status")
    claimed = await kit.claim_one("b")
    request = present(claimed.record.state.cancel_request, "the claimed record carries the request")
    expect_equal(request.reason, "enough", "the reason")


@case("C.3g", "a lapsed owner_bound process that is cancelled is marked, and needs an abandon request")
async def cancel_of_lapsed_owner_bound(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p", recovery="owner_bound"))
    receipt = await kit.cancel("p", "enough")
    expect_equal((receipt.record.status, receipt.record.outcome), ("running", None), "the record")
    expect_equal((await kit.claim("b")).claimed, (), "the rows granted")
    expect_equal(await verdict(kit, "p"), "needs_abandon", "why it is not running")


@case("C.3h", "cancelling is idempotent by reason, and after the end it answers with the outcome")
async def cancel_is_idempotent(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.cancel("p", "enough", "someone")
    again = await kit.cancel("p", "enough", "another")
    expect_equal((again.answer, again.events), ("unchanged", ()), "the same reason again")
    await kit.cancel("p", "other", "another")
    request = present((await kit.get("p")).state.cancel_request, "a cancel request")
    expect_equal((request.reason, request.by), ("enough", "someone"), "the first request stands")
    await kit.complete("p", claimed, Completed(raw(1)))
    late = await kit.cancel("p", "late")
    expect_equal((late.answer, late.events), ("unchanged", ()), "a cancel after the end")
    expect_equal(late.record.outcome, Completed(raw(1)), "the outcome it answers with")


@case("C.3i", "a second reason asked twice is written once")
async def second_reason_is_idempotent_too(kit: Kit) -> None:
    await kit.start("p")
    for reason in ("enough", "other", "other", "enough", "other"):
        await kit.cancel("p", reason)
    expect((await kit.types("p")).count(REQUESTED) <= 2, "at most one request per reason in the log")


@case("C.4", "an abandon request on a live lease is a mark: the lease and the execution go on")
async def abandon_under_a_live_lease(kit: Kit) -> None:
    claimed = await kit.start("p")
    lease = await kit.lease("p")
    receipt = await kit.abandon("p", "operator", "gone")
    expect_equal((receipt.record.status, receipt.record.outcome), ("running", None), "the record")
    expect_equal(await kit.lease("p"), lease, "the lease")
    expect((await kit.renew(claimed.lease.key))[0].held, "the lease renews")
    second = await kit.abandon("p", "another", "too")
    expect_equal((second.answer, second.events), ("unchanged", ()), "a second request")
    request = present((await kit.get("p")).state.abandon_request, "an abandon request")
    expect_equal((request.by, request.reason), ("operator", "gone"), "the first request stands")
    expect_equal(await due_for_settling(kit), [], "the rows due for settling")
    await kit.complete("p", claimed, Completed(raw(1)))
    expect_equal((await kit.get("p")).outcome, Completed(raw(1)), "the outcome that the owner writes")


@case("C.4b", "once the lease has lapsed the row is never granted, and the next drive abandons it with evidence")
async def abandon_after_the_lapse(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.abandon("p", "operator", "gone")
    kit.let_lapse(claimed)
    expect_equal((await kit.claim("b")).claimed, (), "the rows granted")
    expect_equal(await due_for_settling(kit), ["p"], "the rows due for settling")
    record = (await settle_abandoned(kit, "p")).record
    outcome = record.outcome
    expect(isinstance(outcome, Abandoned), f"the process is abandoned, found {outcome!r}")
    assert isinstance(outcome, Abandoned)
    evidence = outcome.evidence
    expect_equal((evidence.writer, evidence.owner), ("reconciled_request", "a"), "writer and owner of the evidence")
    expect("operator asked: gone" in evidence.proof, f"the evidence says who asked and why: {evidence.proof!r}")
    expect_equal(record.state.fence, 2, "the fence of the end")
    expect_equal(await due_for_settling(kit), [], "the rows due for settling afterwards")


@case("C.4c", "an abandon request ends a row that nobody holds in the same decision")
async def abandon_without_a_lease(kit: Kit) -> None:
    kit.let_lapse(await kit.start("lapsed"))
    await kit.register("pending")
    await kit.register("outside", recovery="externally_owned")
    for id in ("lapsed", "pending", "outside"):
        receipt = await kit.abandon(id)
        expect_equal(receipt.record.status, "abandoned", f"the status of {id}")
        expect_equal((await kit.abandon(id)).answer, "unchanged", "the request again, after the end")


@case("C.4d", "a row that its owner gives back after an abandon request does not stay for ever")
async def abandon_then_given_back(kit: Kit) -> None:
    suspended = await kit.start("suspended", signals={"go": ANYTHING}, retry=RetryPolicy())
    retried = await kit.start("retried", retry=RetryPolicy())
    withdrawn = await kit.start("withdrawn")
    released = await kit.start("released")
    for id in ("suspended", "retried", "withdrawn", "released"):
        await kit.abandon(id)
    await kit.suspend(suspended, SignalWait("go", 1))
    await retry_at(kit, retried, kit.now_ms + 1)
    await kit.release(withdrawn, not_entered="no engine")
    await kit.release(released)
    kit.clock.advance(0.001)
    expect_equal((await kit.claim("b")).claimed, (), "the rows granted")
    due = sorted(await due_for_settling(kit))
    expect_equal(due, ["released", "retried", "suspended", "withdrawn"], "the rows due for settling")
    for id in due:
        expect_equal((await settle_abandoned(kit, id)).record.status, "abandoned", f"the status of {id}")


CASES = (
    cancel_before_the_start,
    cancel_while_running,
    cancel_while_suspended,
    cancel_between_retries,
    cancel_again_between_retries,
    cancel_while_lapsed,
    cancel_of_lapsed_owner_bound,
    cancel_is_idempotent,
    second_reason_is_idempotent_too,
    abandon_under_a_live_lease,
    abandon_after_the_lapse,
    abandon_without_a_lease,
    abandon_then_given_back,
)
