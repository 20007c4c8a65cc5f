"""Section C, recovery: what becomes of a process whose owner is gone, and what counts as what."""

from __future__ import annotations

from perdure.errors import LeaseHeld, LeaseSuperseded, NotPermitted
from perdure.model.outcomes import Abandoned, Failed
from perdure.testing.conformance.case import CaseFailed, case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit
from perdure.testing.conformance.requests import due_for_settling, settle_abandoned, verdict
from perdure.transitions.commands import ClaimToSettle, Receipt, SettleWhy


async def settle(kit: Kit, id: str, why: SettleWhy) -> Receipt:
    """What a settling pass does with a row that nobody runs."""
    return await kit.registry.execute(ClaimToSettle(process_id=id, why=why, by=kit.owner("sweeper")))


async def granted(kit: Kit, owner: str = "b") -> list[str]:
    return [claimed.record.id for claimed in (await kit.claim(owner)).claimed]


@case("C.5", "entered owner_bound work whose owner is gone is claimed by nobody, and ends by an abandon request")
async def owner_bound_owner_gone(kit: Kit) -> None:
    claimed = await kit.start("p", recovery="owner_bound", max_deaths=0)
    kit.let_lapse(claimed)
    expect_equal(await granted(kit), [], "the rows granted")
    expect_equal(await verdict(kit, "p"), "needs_abandon", "why it is not running")
    for why in ("deaths_exhausted", "cancelled_unowned", "deadline"):
        with refusal(NotPermitted, f"settling it: {why}"):
            await settle(kit, "p", why)
    record = (await kit.abandon("p", "operator", "machine lost")).record
    if not isinstance(record.outcome, Abandoned):
        raise CaseFailed(f"the process should be abandoned, found {record.outcome!r}")
    evidence = record.outcome.evidence
    expect_equal((evidence.writer, evidence.owner), ("reconciled_request", "a"), "writer and owner of the evidence")


@case("C.5b", "a start that is withdrawn before entry gives the attempt back, and anybody may claim the row")
async def withdrawn_starts(kit: Kit) -> None:
    for recovery in ("owner_bound", "rerunnable"):
        claimed = await kit.start(recovery, recovery=recovery)
        state = (await kit.release(claimed, not_entered="engine missing")).record.state
        expect_equal((state.status, state.attempt, state.started, state.started_at_ms), ("pending", 0, None, None),
                     "status, attempt and start")  # fmt: skip
        expect_equal(await kit.registry.get_lease(recovery), None, "the lease")
        again = await kit.claim_one("b")
        state = again.record.state
        expect_equal((state.attempt, state.deaths, state.fence), (1, 0, 2), "attempt, deaths and fence")
        await kit.complete(recovery, again)


@case("C.5c", "owner_bound work that its owner gives back unended is claimed by nobody")
async def owner_bound_released(kit: Kit) -> None:
    claimed = await kit.start("p", recovery="owner_bound")
    await kit.release(claimed)
    kit.clock.advance(3_600)
    expect_equal(await granted(kit), [], "the rows granted")
    expect_equal(await verdict(kit, "p"), "needs_abandon", "why it is not running")


@case("C.7", "with max_deaths 1, the second lost owner ends the process as abandoned, and it is not run again")
async def deaths_exhausted(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p", max_deaths=1))
    second = await kit.claim_one("b")
    expect_equal(second.record.state.deaths, 1, "the deaths after one lost owner")
    kit.let_lapse(second)
    receipt = await kit.claim("c")
    expect_equal(receipt.claimed, (), "the rows granted after two")
    expect_equal([record.id for record in receipt.ended], ["p"], "the rows that the claim ended")
    record = await kit.get("p")
    if not isinstance(record.outcome, Abandoned):
        raise CaseFailed(f"the process should be abandoned, found {record.outcome!r}")
    evidence = record.outcome.evidence
    expect_equal((evidence.writer, evidence.owner), ("deaths_exhausted", "b"), "writer and owner of the evidence")
    expect_equal((record.attempt, record.state.fence), (2, 3), "attempt and fence")
    with refusal(LeaseSuperseded, "the completion of the last owner"):
        await kit.complete("p", second)


@case("C.7b", "with max_deaths 0, the first lost owner ends the process")
async def no_death_is_survived(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p", max_deaths=0))
    expect_equal(await granted(kit), [], "the rows granted")
    expect_equal((await kit.get("p")).status, "abandoned", "the status")


@case("C.7c", "twenty releases of a running process are no death and no failure")
async def releases_are_no_deaths(kit: Kit) -> None:
    claimed = await kit.start("p", max_deaths=1)
    for n in range(20):
        await kit.release(claimed)
        claimed = await kit.claim_one(f"w{n}")
    state = claimed.record.state
    counts = (state.status, state.attempt, state.deaths, state.failures)
    expect_equal(counts, ("running", 21, 0, 0), "status, attempt, deaths and failures")


@case("C.7d", "deaths count from nothing again after a journal event; a user's own event does not count")
async def journal_resets_deaths(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p", max_deaths=1))
    claimed = await kit.claim_one("b")
    await kit.append("p", "note", execution=kit.execution(claimed))
    expect_equal((await kit.get("p")).state.deaths, 1, "the deaths after a user's event")
    await kit.append("p", "step.completed", {"result": 1}, execution=kit.execution(claimed))
    expect_equal((await kit.get("p")).state.deaths, 0, "the deaths after a journal event")
    kit.let_lapse(claimed)
    claimed = await kit.claim_one("c")
    expect_equal(claimed.record.state.deaths, 1, "the deaths after the next lost owner")
    kit.let_lapse(claimed)
    expect_equal(await granted(kit), [], "the rows granted after one more")


@case("C.7e", "five deaths are survived where none were declared")
async def five_deaths_by_default(kit: Kit) -> None:
    claimed = await kit.start("p")
    for n in range(5):
        kit.let_lapse(claimed)
        claimed = await kit.claim_one(f"w{n}")
    kit.let_lapse(claimed)
    expect_equal(await granted(kit), [], "the rows granted after six")
    expect_equal((await kit.get("p")).status, "abandoned", "the status")


def expect_deadline_failure(outcome: object) -> None:
    if not isinstance(outcome, Failed):
        raise CaseFailed(f"the process should have failed, found {outcome!r}")
    expect_equal(outcome.error.code, "deadline", "the code of the failure")


@case("C.9", "a deadline that passes while nobody runs the process ends it once, at the next look")
async def deadline_while_unowned(kit: Kit) -> None:
    lapsed = await kit.start("lapsed", deadline_ms=30_000)
    await kit.register("pending", deadline_ms=30_000, delay_ms=3_600_000)
    await kit.register("bound", deadline_ms=30_000, recovery="owner_bound", delay_ms=3_600_000)
    kit.clock.advance(29.999)
    expect_equal(await due_for_settling(kit), [], "the rows due for settling a millisecond before")
    with refusal(NotPermitted, "a deadline that has not passed"):
        await settle(kit, "pending", "deadline")
    kit.clock.advance(0.001)
    expect_equal(await due_for_settling(kit), ["bound", "lapsed", "pending"], "the rows due for settling")
    for id in ("bound", "lapsed", "pending"):
        first, again = await settle(kit, id, "deadline"), await settle(kit, id, "deadline")
        expect_equal((first.answer, again.answer), ("applied", "unchanged"), f"the answers about {id}")
        expect_deadline_failure((await kit.get(id)).outcome)
    expect_equal(await due_for_settling(kit), [], "the rows due for settling afterwards")
    with refusal(LeaseSuperseded, "the completion of the owner that had lapsed"):
        await kit.complete("lapsed", lapsed)


@case("C.9b", "a claim that meets a passed deadline ends the row instead of starting it")
async def deadline_at_the_claim(kit: Kit) -> None:
    await kit.register("p", deadline_ms=1_000)
    kit.clock.advance(1)
    receipt = await kit.claim()
    expect_equal((receipt.claimed, [r.id for r in receipt.ended]), ((), ["p"]), "the rows granted and ended")
    expect_deadline_failure((await kit.get("p")).outcome)
    expect_equal(await kit.types("p"), ["process.failed"], "the log")


@case("C.9c", "a deadline under a live lease is the owner's to write")
async def deadline_under_a_lease(kit: Kit) -> None:
    claimed = await kit.start("p", deadline_ms=5_000)
    kit.clock.advance(10)
    expect_equal(await due_for_settling(kit), [], "the rows due for settling")
    with refusal(LeaseHeld, "settling a row under a live lease"):
        await settle(kit, "p", "deadline")
    await kit.complete("p", claimed)
    expect_equal((await kit.get("p")).status, "completed", "the status")


@case("C.9d", "a deadline does not end entered owner_bound work whose owner is gone: its outcome can't be known")
async def deadline_of_owner_bound(kit: Kit) -> None:
    kit.let_lapse(await kit.start("p", recovery="owner_bound", deadline_ms=1_000))
    expect_equal(await granted(kit), [], "the rows granted")
    with refusal(NotPermitted, "settling it by its deadline"):
        await settle(kit, "p", "deadline")
    record = await kit.get("p")
    expect_equal((record.status, record.outcome), ("running", None), "the record")
    expect_equal(await verdict(kit, "p"), "needs_abandon", "why it is not running")
    await kit.abandon("p")
    expect_equal((await kit.get("p")).status, "abandoned", "the status after an abandon request")


@case("C.9e", "a settling pass ends a row only for a reason that the record bears out")
async def settling_needs_its_reason(kit: Kit) -> None:
    await kit.register("p")
    for why in ("reconciled_request", "deaths_exhausted", "deadline", "cancelled_unowned"):
        with refusal(NotPermitted, f"settling it: {why}"):
            await settle(kit, "p", why)
    claimed = await kit.claim_one()
    await kit.abandon("p")
    with refusal(LeaseHeld, "settling it under a live lease"):
        await settle_abandoned(kit, "p")
    await kit.cancel("p")
    kit.let_lapse(claimed)
    record = (await settle(kit, "p", "cancelled_unowned")).record
    expect_equal(record.status, "cancelled", "the status of a cancelled row that nobody runs")
    expect(record.state.fence == 2, "it ended under a fence of its own")


CASES = (
    owner_bound_owner_gone,
    withdrawn_starts,
    owner_bound_released,
    deaths_exhausted,
    no_death_is_survived,
    releases_are_no_deaths,
    journal_resets_deaths,
    five_deaths_by_default,
    deadline_while_unowned,
    deadline_at_the_claim,
    deadline_under_a_lease,
    deadline_of_owner_bound,
    settling_needs_its_reason,
)
