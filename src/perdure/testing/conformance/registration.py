"""Section A, registration: one id is one process, and its record is the fold of its log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure.errors import InvalidOption, InvalidProcessId, OperationConflict, RegistrationConflict
from perdure.model.outcomes import Cancelled, Completed, ErrorDetail
from perdure.model.registration import Definition, Identity, RetryPolicy
from perdure.model.waits import SignalWait, TimerWait
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit, raw, registration
from perdure.transitions.commands import Complete, LeaseRight, Receipt, Register, ScheduleRetry, Wake

ANYTHING = msgspec.Raw(b"{}")


@case("A.1", "a new id is pending, and the same registration again changes nothing")
async def registered_once(kit: Kit) -> None:
    first = await kit.register("p", input=raw({"n": 1}))
    expect_equal(first.answer, "applied", "the answer to a new id")
    expect_equal(first.events, (), "the events of a registration")
    state = first.record.state
    expect_equal((state.status, state.attempt, state.outcome), ("pending", 0, None), "status, attempt and outcome")
    kit.clock.advance(5)
    again = await kit.register("p", input=raw({"n": 1}))
    expect_equal(again.answer, "unchanged", "the answer to the same registration")
    expect_equal(again.record, first.record, "the record after the same registration")
    expect_equal(await kit.get("p"), first.record, "the stored record")
    expect_equal(await kit.types("p"), [], "the log")


@case("A.1b", "the same registration of a process that has ended answers with its outcome")
async def registered_again_after_the_end(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.complete("p", claimed, Completed(raw("done")))
    again = await kit.register("p")
    expect_equal((again.answer, again.record.outcome), ("unchanged", Completed(raw("done"))), "the answer")
    expect_equal(len((await kit.claim()).claimed), 0, "the number of rows that can be claimed")


DECLARED: dict[str, Any] = {
    "definition": Definition("python", "work", 2),
    "recovery": "owner_bound",
    "input": raw({"n": 2}),
    "retry": RetryPolicy(max_attempts=7),
    "max_deaths": 1,
    "deadline_ms": 60_000,
    "delay_ms": 1,
    "queue": "other",
    "priority": 1,
    "identity": Identity("kind", "label"),
    "event_types": {"progress": ANYTHING},
    "signals": {"review": ANYTHING},
    "originator": "somebody",
    "caused_by": "another",
    "parent": "another",
    "wake_target": "another",
}


@case("A.2", "the same id with other content is a conflict that names what differs, and nothing is written")
async def registration_conflicts(kit: Kit) -> None:
    first = await kit.register("p", input=raw({"n": 1}))
    for field, value in DECLARED.items():
        with refusal(RegistrationConflict, f"another {field}") as caught:
            await kit.register("p", **{"input": raw({"n": 1}), field: value})
        expect_equal(caught.error.differing, (field,), "the differing fields")
        expect_equal(caught.error.process_id, "p", "the process named")
    with refusal(RegistrationConflict, "another queue and priority") as caught:
        await kit.register("p", input=raw({"n": 1}), queue="other", priority=0)
    expect_equal(set(caught.error.differing), {"queue", "priority"}, "the differing fields")
    expect_equal(await kit.get("p"), first.record, "the stored record")
    expect_equal(await kit.types("p"), [], "the log")


@case("A.3", "fifty coroutines that register one id get fifty equal answers about one row")
async def fifty_coroutines_register_one_id(kit: Kit) -> None:
    receipts = await asyncio.gather(*(kit.register("p", input=raw(7)) for _ in range(50)))
    expect_equal(sorted(r.answer for r in receipts), ["applied"] + 49 * ["unchanged"], "the answers")
    expect_equal([r.record for r in receipts], 50 * [receipts[0].record], "the records answered")
    expect_equal(await kit.registry.count(), 1, "the number of rows")


@case("A.3b", "callers of several registries that register one id get equal answers", needs=("multi_process",))
async def several_registries_register_one_id(kit: Kit) -> None:
    registries = [kit.registry, *[await kit.peer() for _ in range(3)]]
    command = Register(process_id="p", registration=registration("p", input=raw(7)))
    receipts = await asyncio.gather(*(r.execute(command) for r in registries for _ in range(13)))
    expect_equal(sorted(r.answer for r in receipts), ["applied"] + 51 * ["unchanged"], "the answers")
    expect_equal([r.record for r in receipts], 52 * [receipts[0].record], "the records answered")
    expect_equal([await r.count() for r in registries], [1, 1, 1, 1], "the number of rows")


@case("A.7", "after every operation the log folds to the stored record")
async def every_operation_folds(kit: Kit) -> None:
    async def check() -> None:
        await kit.check_fold("p")

    await kit.register("p", retry=RetryPolicy(max_attempts=9), signals={"go": ANYTHING})
    await check()
    claimed = await kit.claim_one("a")
    await check()
    await kit.append("p", "note", {"text": "hello"})
    await kit.append("p", "step.completed", {"result": 1}, execution=kit.execution(claimed))
    await check()
    await kit.release(claimed, not_entered="no engine")
    await check()
    claimed = await kit.claim_one("a")
    failed = ScheduleRetry(
        process_id="p", execution=kit.execution(claimed), error=ErrorDetail("E"), due_at_ms=kit.now_ms
    )
    await kit.registry.execute(failed)
    await check()
    claimed = await kit.claim_one("a")
    await kit.suspend(claimed, SignalWait("go", 1), TimerWait(kit.now_ms + 60_000))
    await check()
    await kit.registry.execute(Wake(process_id="p", wait=SignalWait("go", 1), cause="by hand"))
    await check()
    claimed = await kit.claim_one("b")
    await check()
    await kit.suspend(claimed, SignalWait("go", 1))
    await kit.signal("p", "go", {"n": 1}, "s-1")
    await check()
    claimed = await kit.claim_one("b")
    kit.let_lapse(claimed)
    claimed = await kit.claim_one("c")
    await check()
    await kit.cancel("p", "enough", "someone")
    await kit.abandon("p")
    await check()
    await kit.complete("p", claimed, Cancelled("enough", "someone"))
    await check()
    expect_equal((await kit.get("p")).status, "cancelled", "the status at the end")


@case("A.7b", "what was acknowledged is there, whole, when the store is opened again", needs=("reopenable",))
async def reopened_store_is_whole(kit: Kit) -> None:
    claimed = await kit.start("p", input=raw({"text": "é\n"}), signals={"go": ANYTHING})
    await kit.append("p", "note", [1.5, None, "ü"], replay_key="n")
    record, lease, log = await kit.get("p"), await kit.lease("p"), await kit.log("p")
    await kit.reopen()
    expect_equal(await kit.get("p"), record, "the record")
    expect_equal(await kit.lease("p"), lease, "the lease")
    expect_equal(await kit.log("p"), log, "the log")
    await kit.complete("p", claimed)
    await kit.reopen()
    expect_equal((await kit.get("p")).outcome, Completed(), "the outcome")


GOOD_IDS = ("a", "A", "9", "a" * 200, "Order.2024-01:eu_west@host+1", "0-._:@+-")
BAD_IDS = (
    "",
    "a" * 201,
    "a#b",
    "a b",
    " a",
    "a/b",
    "a\\b",
    "a\n",
    "a\0",
    "\x7f",
    "é",
    "日本",
    ".a",
    "-a",
    "_a",
    "a\u00a0b",
)


@case("A.12", "ids follow one rule, which its refusal states; case matters")
async def ids_follow_one_rule(kit: Kit) -> None:
    for id in GOOD_IDS:
        await kit.register(id)
    expect_equal(await kit.registry.count(), len(GOOD_IDS), "the number of rows: ids that differ in case are two")
    for id in BAD_IDS:
        with refusal(InvalidProcessId, f"the id {id!r}") as caught:
            await kit.register(id)
        expect("1 to 200 characters" in caught.error.rule, "the refusal states the rule")
        with refusal(InvalidProcessId, f"the parent {id!r}"):
            await kit.register("child", parent=id)
    expect_equal(await kit.registry.count(), len(GOOD_IDS), "the number of rows after the refusals")


@case("A.12b", "a registration under another name than its own is refused")
async def registration_under_another_name(kit: Kit) -> None:
    await kit.register("b")
    before = await kit.get("b")
    with refusal(InvalidOption, "a registration of 'b' asked for as 'a'"):
        await kit.registry.execute(Register(process_id="a", registration=registration("b", input=raw(1))))
    expect_equal(await kit.get("b"), before, "the record of 'b'")
    expect_equal(await kit.registry.count(), 1, "the number of rows")


@case("A.13", "the same operation id again is the first receipt; with other arguments it is a conflict")
async def operation_asked_again(kit: Kit) -> None:
    claimed = await kit.start("p")
    first = await kit.append("p", "note", 1, operation_id="op-1")
    kit.clock.advance(1)
    again = await kit.append("p", "note", 1, operation_id="op-1")
    expect_equal((again.answer, again.events), (first.answer, first.events), "the answer to the same operation")
    with refusal(OperationConflict, "the operation with other arguments"):
        await kit.append("p", "note", 2, operation_id="op-1")
    with refusal(OperationConflict, "the operation as another command"):
        await kit.complete("p", claimed, operation_id="op-1")
    ended = await kit.complete("p", claimed, operation_id="op-2")
    once_more = await kit.complete("p", claimed, operation_id="op-2")
    expect_equal((once_more.answer, once_more.events), (ended.answer, ended.events), "the answer, before fence rules")
    expect_equal(await kit.types("p"), ["process.started", "note", "process.completed"], "the log")


@case("A.13b", "the same operation twice in one batch is done once")
async def operation_twice_in_one_batch(kit: Kit) -> None:
    claimed = await kit.start("p")
    right = LeaseRight(claimed.lease.key)
    command = Complete(process_id="p", outcome=Completed(raw(1)), authority=right, operation_id="op")
    first, second = await kit.registry.execute_together((command, command))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    expect_equal((first.replayed, second.replayed), (False, True), "which of the two was answered again")
    expect_equal((second.answer, second.record, second.events), (first.answer, first.record, first.events), "receipts")
    expect_equal(await kit.types("p"), ["process.started", "process.completed"], "the log")


CASES = (
    registered_once,
    registered_again_after_the_end,
    registration_conflicts,
    fifty_coroutines_register_one_id,
    several_registries_register_one_id,
    every_operation_folds,
    reopened_store_is_whole,
    ids_follow_one_rule,
    registration_under_another_name,
    operation_asked_again,
    operation_twice_in_one_batch,
)
