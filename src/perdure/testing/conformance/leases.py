"""Section B, leases and fences: one owner at a time, and what a stale one writes is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from perdure.errors import InvalidOption, LeaseSuperseded
from perdure.model.leases import LeaseKey
from perdure.model.outcomes import ErrorDetail, Failed
from perdure.model.registration import RetryPolicy
from perdure.model.waits import TimerWait
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit, raw, registration
from perdure.transitions.commands import Claimed, Register, ScheduleRetry


async def claimable(kit: Kit, owner: str = "b") -> int:
    """How many rows another owner is granted now."""
    return len((await kit.claim(owner)).claimed)


@case("B.3", "at the exact instant of its expiry a lease has lapsed, and another owner is granted the next fence")
async def lapse_at_the_exact_instant(kit: Kit) -> None:
    claimed = await kit.start("p")
    kit.clock.advance(14.999)
    expect_equal(await claimable(kit), 0, "the rows granted a millisecond before")
    kit.clock.advance(0.001)
    taken = await kit.claim_one("b")
    expect_equal((claimed.lease.fence, taken.lease.fence), (1, 2), "the fences")
    state = taken.record.state
    expect_equal((state.attempt, state.deaths, state.fence), (2, 1, 2), "attempt, deaths and fence")
    said = msgspec.json.decode((await kit.log("p"))[-1].payload)
    found = {name: said["takeover"].get(name) for name in ("owner", "fence", "cause")}
    expected = {"owner": {"name": "a", "incarnation": "a-1"}, "fence": 1, "cause": "lapsed"}
    expect_equal(found, expected, "whom the log says it was taken over from")


@case("B.3b", "fences grow through release, withdrawal, retry and suspension alike")
async def fences_never_go_down(kit: Kit) -> None:
    fences = []
    claimed = await kit.start("p", retry=RetryPolicy(max_attempts=9))
    fences.append(claimed.lease.fence)
    await kit.release(claimed)
    claimed = await kit.claim_one("b")
    fences.append(claimed.lease.fence)
    await kit.release(claimed, not_entered="no engine")
    claimed = await kit.claim_one("a")
    fences.append(claimed.lease.fence)
    retry = ScheduleRetry(process_id="p", execution=kit.execution(claimed), error=ErrorDetail("E"), due_at_ms=0)
    await kit.registry.execute(retry)
    claimed = await kit.claim_one("b")
    fences.append(claimed.lease.fence)
    await kit.suspend(claimed, TimerWait(kit.now_ms + 1))
    kit.clock.advance(0.001)
    fences.append((await kit.claim_one("b")).lease.fence)
    expect_equal(fences, [1, 2, 3, 4, 5], "the fences granted")


@case("B.3c", "a wall clock that steps an hour under a live lease changes nothing")
async def wall_clock_steps(kit: Kit) -> None:
    claimed = await kit.start("p")
    for step_ms in (3_600_000, -7_200_000):
        kit.clock.step_wall(step_ms)
        expect_equal(await claimable(kit), 0, f"the rows granted after a step of {step_ms} ms")
        expect((await kit.renew(claimed.lease.key))[0].held, f"the lease is held after a step of {step_ms} ms")
    kit.clock.advance(15)
    expect_equal(await claimable(kit), 1, "the rows granted once the lease has lapsed")


@case("B.3d", "a lease of another boot has lapsed, whatever its times say")
async def another_boot(kit: Kit) -> None:
    claimed = await kit.start("p")
    kit.clock.reboot()
    with refusal(LeaseSuperseded, "a write of the owner of another boot"):
        await kit.complete("p", claimed)
    expect_equal((await kit.claim_one("b")).lease.fence, 2, "the fence granted after the reboot")


@case("B.3e", "a released row is claimable at once, or when its hold is over")
async def releases_and_holds(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.release(claimed)
    claimed = await kit.claim_one("b")
    await kit.release(claimed, hold_ms=1_000)
    kit.clock.advance(0.999)
    expect_equal(await claimable(kit, "c"), 0, "the rows granted a millisecond before the hold is over")
    kit.clock.advance(0.001)
    claimed = await kit.claim_one("c")
    await kit.release(claimed, not_entered="no engine", hold_ms=1_000)
    expect_equal(await claimable(kit, "c"), 0, "the rows granted during the hold of a withdrawn start")
    kit.clock.advance(1)
    state = (await kit.claim_one("c")).record.state
    expect_equal((state.attempt, state.deaths, state.failures), (3, 0, 0), "attempt, deaths and failures")


async def expect_refused_writes(kit: Kit, stale: Claimed) -> None:
    """Every write of a stale owner is refused; its release is a silent no-op; neither log nor lease change."""
    id, right = stale.record.id, kit.execution(stale)
    record, lease, log = await kit.get(id), await kit.registry.get_lease(id), await kit.log(id)
    writes: dict[str, Callable[[], Awaitable[object]]] = {
        "an append": lambda: kit.append(id, "note", execution=right),
        "a journal append": lambda: kit.append(id, "step.completed", execution=right),
        "a completion": lambda: kit.complete(id, stale),
        "a failure": lambda: kit.complete(id, stale, Failed(ErrorDetail("E"))),
        "a suspension": lambda: kit.suspend(stale, TimerWait(kit.now_ms + 1)),
        "a retry": lambda: kit.registry.execute(
            ScheduleRetry(process_id=id, execution=right, error=ErrorDetail("E"), due_at_ms=0)
        ),
    }
    for what, write in writes.items():
        with refusal(LeaseSuperseded, f"{what} of a stale owner") as caught:
            await write()
        expect_equal(caught.error.presented_fence, stale.lease.fence, "the fence presented")
    expect_equal([r.held for r in await kit.renew(stale.lease.key)], [False], "whether a stale renewal is held")
    for not_entered in (None, "no engine"):
        expect_equal((await kit.release(stale, not_entered)).answer, "unchanged", "the answer to a stale release")
    expect_equal(await kit.get(id), record, "the record")
    expect_equal(await kit.registry.get_lease(id), lease, "the lease")
    expect_equal(await kit.log(id), log, "the log")


@case("B.4", "every write of an owner whose row was taken over is refused, and its release does nothing")
async def stale_owner_is_refused(kit: Kit) -> None:
    old = await kit.start("p", retry=RetryPolicy())
    kit.let_lapse(old)
    new = await kit.claim_one("b")
    await expect_refused_writes(kit, old)
    await kit.complete("p", new)
    await expect_refused_writes(kit, old)


@case("B.4b", "a released, a suspended and a withdrawn lease are stale too")
async def given_back_leases_are_stale(kit: Kit) -> None:
    released = await kit.start("p1", retry=RetryPolicy())
    await kit.release(released)
    await expect_refused_writes(kit, released)
    await kit.release(await kit.claim_one("b"), hold_ms=60_000)
    await expect_refused_writes(kit, released)
    withdrawn = await kit.start("p2", retry=RetryPolicy())
    await kit.release(withdrawn, not_entered="no engine", hold_ms=60_000)
    await expect_refused_writes(kit, withdrawn)
    suspended = await kit.start("p3", retry=RetryPolicy())
    await kit.suspend(suspended, TimerWait(kit.now_ms + 60_000))
    await expect_refused_writes(kit, suspended)


@case("B.4c", "a key that differs from the standing lease in anything is refused")
async def forged_keys(kit: Kit) -> None:
    for id in ("p", "q"):
        await kit.register(id)
    p, q = (await kit.claim(limit=2)).claimed
    replace = msgspec.structs.replace
    forged = {
        "token": replace(p.lease, token=p.lease.token + "x"),
        "fence": replace(p.lease, fence=2),
        "incarnation": replace(p.lease, owner=kit.owner("b")),
        "process": q.lease,
    }
    for what, lease in forged.items():
        with refusal(LeaseSuperseded, f"another {what}"):
            await kit.complete("p", Claimed(p.record, lease))
    renewed = await kit.renew(
        *(replace(lease.key, process_id="p") for what, lease in forged.items() if what != "process")
    )
    expect_equal([r.held for r in renewed], 3 * [False], "whether forged keys renew")
    expect_equal(await kit.types("p"), ["process.started"], "the log")
    expect((await kit.renew(p.lease.key))[0].held, "the true key renews")


@case("B.5", "an owner whose lease has lapsed may not write, even if nobody took over")
async def lapsed_owner_is_refused(kit: Kit) -> None:
    claimed = await kit.start("p", retry=RetryPolicy())
    kit.let_lapse(claimed)
    await expect_refused_writes(kit, claimed)
    record = await kit.get("p")
    expect_equal((record.status, record.is_live), ("running", True), "the row")


@case("B.6", "a renewal of a thousand leases answers each: held, superseded, cancel requested")
async def renewing_a_thousand(kit: Kit) -> None:
    ids = [f"p{n:04}" for n in range(1_000)]
    await kit.registry.execute_all([Register(process_id=id, registration=registration(id)) for id in ids])
    held = (await kit.claim(limit=1_000)).claimed
    expect_equal(len(held), 1_000, "the number of rows granted")
    await kit.cancel("p0001", "enough", "someone")
    await kit.complete("p0002", held[2])
    await kit.release(held[3])
    kit.clock.advance(5)
    keys = [claimed.lease.key for claimed in held]
    renewals = await kit.renew(*keys, LeaseKey("nobody", "a-1", "t", 1))
    expect_equal([r.process_id for r in renewals], [*ids, "nobody"], "the ids, in the order asked")
    lost = [r.process_id for r in renewals if not r.held]
    expect_equal(lost, ["p0002", "p0003", "nobody"], "the leases that are not held")
    told = [(r.process_id, r.cancel_reason, r.cancel_by) for r in renewals if r.cancel_reason is not None]
    expect_equal(told, [("p0001", "enough", "someone")], "the cancellations told")
    expect_equal((await kit.lease("p0000")).expires_at_ms, kit.now_ms + 15_000, "the new expiry")
    expect_equal((await kit.lease("p0000")).fence, 1, "the fence")
    kit.clock.advance(14.999)
    expect_equal([c.record.id for c in (await kit.claim("b")).claimed], ["p0003"], "what others are granted meanwhile")
    with refusal(InvalidOption, "a renewal for no time"):
        await kit.renew(keys[0], ttl_ms=0)


@case("B.6b", "a renewal never shortens a lease, and can't bring a lapsed one back")
async def renewals_never_shorten(kit: Kit) -> None:
    claimed = await kit.start("p", input=raw(None))
    await kit.renew(claimed.lease.key, ttl_ms=60_000)
    await kit.renew(claimed.lease.key, ttl_ms=1)
    expect_equal((await kit.lease("p")).expires_at_ms, kit.now_ms + 60_000, "the expiry")
    kit.clock.advance(59.999)
    expect_equal(await claimable(kit), 0, "the rows granted before the longer lease has lapsed")
    kit.clock.advance(0.001)
    expect_equal([r.held for r in await kit.renew(claimed.lease.key)], [False], "whether a lapsed lease renews")
    expect_equal(await claimable(kit), 1, "the rows granted")


CASES = (
    lapse_at_the_exact_instant,
    fences_never_go_down,
    wall_clock_steps,
    another_boot,
    releases_and_holds,
    stale_owner_is_refused,
    given_back_leases_are_stale,
    forged_keys,
    lapsed_owner_is_refused,
    renewing_a_thousand,
    renewals_never_shorten,
)
