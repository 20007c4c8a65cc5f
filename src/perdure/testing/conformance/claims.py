"""Section B, claims: claiming is starting, in one order, each row once."""

from __future__ import annotations

import asyncio

import msgspec

from perdure.errors import InvalidOption, PerdureError, UnknownProcess
from perdure.model.outcomes import ErrorDetail
from perdure.model.registration import Definition, RetryPolicy
from perdure.model.waits import SignalWait, TimerWait
from perdure.testing.conformance.case import case, expect, expect_equal, present, refusal
from perdure.testing.conformance.kit import EXTERNAL, WORK, Kit, registration
from perdure.transitions.commands import (
    Admit,
    ClaimReceipt,
    ClaimToSettle,
    Register,
    RequestCancel,
    ScheduleRetry,
)

ANYTHING = msgspec.Raw(b"{}")


def ids_of(receipt: object) -> list[str]:
    """The rows that a claim granted, in its order."""
    expect(isinstance(receipt, ClaimReceipt), f"a claim is answered, found {receipt!r}")
    assert isinstance(receipt, ClaimReceipt)
    return [claimed.record.id for claimed in receipt.claimed]


@case("B.1", "of two workers that claim one row at once, one is granted it and the other nothing")
async def two_claim_one_row(kit: Kit) -> None:
    await kit.register("p")
    receipts = await asyncio.gather(kit.claim("a"), kit.claim("b"))
    expect_equal(sorted(map(ids_of, receipts)), [[], ["p"]], "the rows granted")
    expect_equal(await kit.types("p"), ["process.started"], "the log")


@case("B.1b", "of several registries that claim at once, each row is granted by one", needs=("multi_process",))
async def several_registries_claim(kit: Kit) -> None:
    registries = [kit.registry, await kit.peer(), await kit.peer()]
    ids = [f"p{n:02}" for n in range(30)]
    for id in ids:
        await kit.register(id)
    claims = (r.execute(kit.claim_command(f"w{n}", limit=4)) for n in range(9) for r in registries)
    granted = [id for receipt in await asyncio.gather(*claims) for id in ids_of(receipt)]
    expect_equal(sorted(granted), ids, "the rows granted, each once")


@case("B.1c", "claiming where there is nothing, or settling an unknown id, creates nothing")
async def claiming_creates_nothing(kit: Kit) -> None:
    expect_equal(ids_of(await kit.claim()), [], "the rows granted in an empty store")
    with refusal(UnknownProcess, "settling an unknown id"):
        await kit.registry.execute(ClaimToSettle(process_id="p", why="deadline", by=kit.owner()))
    expect_equal(await kit.registry.count(), 0, "the number of rows")


@case("B.2", "a row under a live lease is granted to nobody else")
async def leased_rows_are_not_claimable(kit: Kit) -> None:
    claimed = await kit.start("p")
    kit.clock.advance(14.999)
    expect_equal(ids_of(await kit.claim("b")), [], "the rows granted a millisecond before the expiry")
    expect_equal((await kit.lease("p")).key, claimed.lease.key, "the lease")


@case("B.2b", "a claim asked again by its claim id returns its rows and claims nothing new")
async def claim_asked_again(kit: Kit) -> None:
    for id in ("p1", "p2", "p3"):
        await kit.register(id)
    command = kit.claim_command("a", limit=2)
    first = await kit.registry.execute(command)
    again = await kit.registry.execute(command)
    expect_equal((ids_of(first), ids_of(again)), (["p1", "p2"], ["p1", "p2"]), "the rows of both answers")
    expect_equal([c.lease for c in again.claimed], [c.lease for c in first.claimed], "the leases")
    expect_equal((await kit.get("p3")).status, "pending", "the row that was not asked for")
    await kit.complete("p1", first.claimed[0])
    expect_equal(ids_of(await kit.registry.execute(command)), ["p2"], "the rows that still carry the claim id")
    expect_equal(await kit.types("p2"), ["process.started"], "the log of a row answered three times")
    expect_equal(ids_of(await kit.claim("b")), ["p3"], "the rows left to others")


@case("B.2c", "with the first answer of every claim lost, each row is still started once and none is left over")
async def every_answer_lost_once(kit: Kit) -> None:
    ids = [f"p{n}" for n in range(12)]
    for n, id in enumerate(ids):
        await kit.register(id, recovery="owner_bound" if n % 2 else "rerunnable")
    for _ in range(4):
        command = kit.claim_command("a", limit=3)
        await kit.registry.execute(command)  # this answer never arrives
        for claimed in (await kit.registry.execute(command)).claimed:
            await kit.complete(claimed.record.id, claimed)
    for id in ids:
        record = await kit.get(id)
        expect_equal((record.status, record.attempt), ("completed", 1), f"status and attempt of {id}")


@case("B.7", "rows are granted in order of priority, then due time, then id")
async def claim_order(kit: Kit) -> None:
    await kit.register("z-first", priority=0, delay_ms=900)
    await kit.register("b-late", delay_ms=500)
    await kit.register("c-early", delay_ms=100)
    await kit.register("a-late", delay_ms=500)
    await kit.register("low", priority=9)
    kit.clock.advance(1)
    order = ["z-first", "c-early", "a-late", "b-late", "low"]
    expect_equal(ids_of(await kit.claim(limit=3)), order[:3], "the first three")
    expect_equal(ids_of(await kit.claim(limit=3)), order[3:], "the rest")


@case("B.7b", "only the definitions, versions and queues that were asked for are granted")
async def claim_asks_for_definitions(kit: Kit) -> None:
    second, other = Definition("python", "work", 2), Definition("python", "other")
    await kit.register("v1")
    await kit.register("v2", definition=second)
    await kit.register("other", definition=other)
    await kit.register("bulk", queue="bulk")
    expect_equal(ids_of(await kit.claim(definitions=())), [], "no definition")
    expect_equal(ids_of(await kit.claim(queues=())), [], "no queue")
    expect_equal(ids_of(await kit.claim(definitions=(second,))), ["v2"], "version 2 alone")
    expect_equal(ids_of(await kit.claim(queues=("bulk",))), ["bulk"], "one queue alone")
    expect_equal(ids_of(await kit.claim(definitions=(WORK, other))), ["other", "v1"], "two definitions")


@case("B.7c", "no terminal, not-due, leased, admitted or externally owned row is ever granted")
async def rows_that_are_never_granted(kit: Kit) -> None:
    everything = {"definitions": (WORK, EXTERNAL)}
    ended = await kit.start("ended")
    await kit.complete("ended", ended)
    await kit.start("leased")
    waiting = await kit.start("waiting", signals={"go": ANYTHING})
    await kit.suspend(waiting, SignalWait("go", 1))
    retried = await kit.start("retried", retry=RetryPolicy())
    due = ScheduleRetry(process_id="retried", execution=kit.execution(retried), error=ErrorDetail("E"),
                        due_at_ms=kit.now_ms + 1)  # fmt: skip
    await kit.registry.execute(due)
    await kit.register("delayed", delay_ms=1)
    await kit.register("outside", recovery="externally_owned")
    await kit.register("admitted")
    await kit.registry.execute(Admit(process_id="admitted", workflow_key="w"))
    await kit.register("cancelled")
    await kit.cancel("cancelled")
    expect_equal(ids_of(await kit.claim("b", **everything)), [], "the rows granted")
    kit.clock.advance(0.001)
    expect_equal(ids_of(await kit.claim("b", **everything)), ["delayed", "retried"], "the rows that have come due")
    expect_equal((await kit.get("outside")).status, "pending", "the externally owned row")


@case("B.8", "a claim starts what it grants, in one transaction, and grants no more than was asked for")
async def claiming_is_starting(kit: Kit) -> None:
    for id in ("p1", "p2", "p3"):
        await kit.register(id)
    receipt = await kit.claim("a", limit=2)
    expect_equal(ids_of(receipt), ["p1", "p2"], "the rows granted")
    claimed = receipt.claimed[0]
    expect_equal(claimed.record, await kit.get("p1"), "the record of the receipt")
    state = claimed.record.state
    expect_equal((state.status, state.attempt, state.fence), ("running", 1, 1), "status, attempt and fence")
    started = (await kit.log("p1"))[0]
    said = msgspec.json.decode(started.payload)
    expect_equal(said["owner"], {"name": "a", "incarnation": "a-1"}, "the owner in the log")
    expect_equal((said["fence"], said["attempt"]), (claimed.lease.fence, 1), "fence and attempt in the log")
    expect_equal([e.type for e in receipt.events], 2 * ["process.started"], "the events of the receipt")
    lease = await kit.lease("p1")
    expect_equal((lease, lease.expires_at_ms), (claimed.lease, kit.now_ms + 15_000), "the lease and its expiry")
    for limit in (0, -1):
        with refusal(InvalidOption, f"a claim of {limit} rows"):
            await kit.claim(limit=limit)


@case("B.8b", "a due waiting row is resumed with the attempt it had")
async def due_waiting_rows_are_resumed(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.suspend(claimed, TimerWait(kit.now_ms + 2_000))
    kit.clock.advance(1.999)
    expect_equal(ids_of(await kit.claim("b")), [], "the rows granted before the timer")
    kit.clock.advance(0.001)
    resumed = await kit.claim_one("b")
    state = resumed.record.state
    expect_equal((state.status, state.attempt, state.fence), ("running", 1, 2), "status, attempt and fence")
    expect_equal((await kit.types("p"))[-1], "process.resumed", "the last event")
    start = present(state.started, "the standing start")
    expect_equal((start.owner.name, start.attempt, start.fence), ("b", 1, 2), "owner, attempt and fence of the start")


@case("B.8c", "two claims of one batch never grant the same row")
async def two_claims_in_one_batch(kit: Kit) -> None:
    for n in range(5):
        await kit.register(f"p{n}")
    claims = (kit.claim_command("a", limit=3), kit.claim_command("b", limit=3))
    first, second = await kit.registry.execute_together(claims)
    expect_equal((ids_of(first), ids_of(second)), (["p0", "p1", "p2"], ["p3", "p4"]), "the rows granted")


@case("B.8d", "a row that was cancelled earlier in the batch is not granted; what was registered in it is")
async def claims_see_their_batch(kit: Kit) -> None:
    await kit.register("p1")
    await kit.register("p2")
    new = Register(process_id="p3", registration=registration("p3"))
    results = await kit.registry.execute_together(
        (kit.claim_command(), RequestCancel(process_id="p1", reason="no"), new)
    )
    expect_equal(ids_of(results[0]), ["p2", "p3"], "the rows granted")
    expect_equal(await kit.types("p1"), ["process.cancel_requested", "process.cancelled"], "the log of the other")


@case("B.8e", "a start here is a claim like any other: what waits before it in the order comes first")
async def starting_here_keeps_the_order(kit: Kit) -> None:
    await kit.register("older")
    kit.clock.advance(1)
    new = Register(process_id="newer", registration=registration("newer"))
    _, claimed = await kit.registry.execute_together((new, kit.claim_command(limit=1)))
    expect_equal(ids_of(claimed), ["older"], "the row granted")
    urgent = Register(process_id="urgent", registration=registration("urgent", priority=0))
    _, claimed = await kit.registry.execute_together((urgent, kit.claim_command(limit=1)))
    expect_equal(ids_of(claimed), ["urgent"], "the row granted to an urgent start")
    taken = Register(process_id="newer", registration=registration("newer", priority=1))
    refused, claimed = await kit.registry.execute_together((taken, kit.claim_command(limit=1)))
    expect(isinstance(refused, PerdureError), "a conflicting start is refused")
    expect_equal(ids_of(claimed), ["newer"], "what the claim beside it grants")


CASES = (
    two_claim_one_row,
    several_registries_claim,
    claiming_creates_nothing,
    leased_rows_are_not_claimable,
    claim_asked_again,
    every_answer_lost_once,
    claim_order,
    claim_asks_for_definitions,
    rows_that_are_never_granted,
    claiming_is_starting,
    due_waiting_rows_are_resumed,
    two_claims_in_one_batch,
    claims_see_their_batch,
    starting_here_keeps_the_order,
)
