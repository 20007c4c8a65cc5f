"""Section C, authority: who may end a process, and that it ends once."""

from __future__ import annotations

from typing import Any

from perdure.errors import InvalidOption, LeaseHeld, LeaseSuperseded, NotExternallyOwned, NotPermitted
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.registration import RECOVERIES, Recovery, RetryPolicy
from perdure.testing.conformance.case import case, expect_equal, refusal
from perdure.testing.conformance.kit import EXTERNAL, WORK, Kit, raw
from perdure.transitions.commands import (
    Admit,
    CompletionAuthority,
    ExternalOwner,
    ReconciledAbandon,
    RecordCallerDeparture,
    SetExternalRef,
    WorkflowKey,
)

OUTCOMES: tuple[Outcome, ...] = (
    Completed(raw({"n": 1})),
    Failed(ErrorDetail("E", "broken")),
    Cancelled("enough", "someone"),
    Abandoned(Evidence("engine", "host", 1, "gave up")),
)
STATUS_OF = ("completed", "failed", "cancelled", "abandoned")

# (authority, recovery, admitted): the outcomes that are accepted. Whatever is not listed is refused.
ACCEPTED: dict[tuple[str, Recovery, bool], tuple[str, ...]] = {
    ("external owner", "externally_owned", False): STATUS_OF,
    ("reconciled abandon", "externally_owned", False): ("abandoned",),
    ("workflow key", "rerunnable", True): STATUS_OF,
    ("workflow key", "owner_bound", True): STATUS_OF,
}


def authorities(id: str) -> dict[str, CompletionAuthority]:
    return {
        "external owner": ExternalOwner("outside"),
        "reconciled abandon": ReconciledAbandon("operator"),
        "workflow key": WorkflowKey(id, "w"),
        "another workflow key": WorkflowKey(id, "w2"),
    }


@case("C.1", "every authority may give exactly the outcomes that the table says, to the rows that it says")
async def authority_table(kit: Kit) -> None:
    for recovery in RECOVERIES:
        for admitted in (False, True):
            if admitted and recovery == "externally_owned":
                continue  # refused below: an engine never runs it
            for name in authorities(""):
                for status, outcome in zip(STATUS_OF, OUTCOMES, strict=True):
                    await _check_cell(kit, recovery, admitted, name, status, outcome)
    await kit.register("outside", recovery="externally_owned")
    with refusal(NotPermitted, "an admission of externally owned work"):
        await kit.registry.execute(Admit(process_id="outside", workflow_key="w"))


async def _check_cell(kit: Kit, recovery: Recovery, admitted: bool, name: str, status: str, outcome: Outcome) -> None:
    cell = f"{recovery}.{int(admitted)}.{name.replace(' ', '_')}.{status}"
    await kit.register(cell, recovery=recovery)
    if admitted:
        await kit.registry.execute(Admit(process_id=cell, workflow_key="w"))
    before = await kit.get(cell)
    authority = authorities(cell)[name]
    if status in ACCEPTED.get((name, recovery, admitted), ()):
        receipt = await kit.complete(cell, authority, outcome)
        expect_equal((receipt.answer, receipt.record.status), ("applied", status), cell)
        expect_equal((await kit.get(cell)).outcome, outcome, f"the outcome of {cell}")
    else:
        with refusal(NotPermitted, cell):
            await kit.complete(cell, authority, outcome)
        expect_equal(await kit.get(cell), before, f"the record of {cell}")


@case("C.1b", "under a live lease only its holder may end the process, with any outcome")
async def lease_gives_any_outcome(kit: Kit) -> None:
    for status, outcome in zip(STATUS_OF, OUTCOMES, strict=True):
        for recovery in ("rerunnable", "owner_bound"):
            id = f"{status}.{recovery}"
            claimed = await kit.start(id, recovery=recovery)
            for authority in authorities(id).values():
                with refusal(NotPermitted, f"another authority for {id}"):
                    await kit.complete(id, authority, outcome)
            await kit.complete(id, claimed, outcome)
            record = await kit.get(id)
            expect_equal((record.status, record.outcome), (status, outcome), id)
            expect_equal(await kit.registry.get_lease(id), None, "the lease after the end")


@case("C.2", "an equal outcome again is already applied; another is superseded and told what stands")
async def completing_twice(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.complete("p", claimed, Completed(raw(1)))
    stands = await kit.get("p")
    kit.clock.advance(60)
    same = await kit.complete("p", claimed, Completed(raw(1)))
    expect_equal((same.answer, same.record, same.events), ("already_applied", stands, ()), "the equal outcome")
    for other in (Completed(raw(2)), Failed(ErrorDetail("E")), Cancelled("no")):
        answer = await kit.complete("p", claimed, other)
        expect_equal((answer.answer, answer.record.outcome), ("superseded", Completed(raw(1))), "another outcome")
    expect_equal(await kit.get("p"), stands, "the record")
    expect_equal(await kit.types("p"), ["process.started", "process.completed"], "the log")


@case("C.2b", "who has no right to the process learns nothing after the end either")
async def authority_is_checked_after_the_end(kit: Kit) -> None:
    stale = await kit.start("p")
    kit.let_lapse(stale)
    claimed = await kit.claim_one("b")
    await kit.complete("p", claimed)
    with refusal(LeaseSuperseded, "the stale owner's equal outcome"):
        await kit.complete("p", stale)
    for authority in authorities("p").values():
        with refusal(NotPermitted, f"{authority}'s equal outcome"):
            await kit.complete("p", authority)
    await kit.register("outside", recovery="externally_owned")
    await kit.complete("outside", ExternalOwner("x"), Completed(raw(1)))
    same = await kit.complete("outside", ExternalOwner("x"), Completed(raw(1)))
    expect_equal(same.answer, "already_applied", "the owner's equal outcome")
    other = await kit.complete("outside", ExternalOwner("x"), Completed(raw(2)))
    expect_equal((other.answer, other.record.outcome), ("superseded", Completed(raw(1))), "its other outcome")
    with refusal(NotPermitted, "a reconciled completion"):
        await kit.complete("outside", ReconciledAbandon("x"), Completed(raw(1)))


@case("C.1c", "an admitted row and a leased one exclude each other")
async def admission_excludes_lease(kit: Kit) -> None:
    await kit.start("leased")
    with refusal(LeaseHeld, "an admission of a leased row"):
        await kit.registry.execute(Admit(process_id="leased", workflow_key="w"))
    await kit.register("admitted")
    await kit.registry.execute(Admit(process_id="admitted", workflow_key="w"))
    again = await kit.registry.execute(Admit(process_id="admitted", workflow_key="w"))
    expect_equal(again.answer, "unchanged", "the same admission again")
    with refusal(NotPermitted, "an admission under another key"):
        await kit.registry.execute(Admit(process_id="admitted", workflow_key="w2"))
    kit.clock.advance(3_600)
    granted = [c.record.id for c in (await kit.claim("b")).claimed]
    expect_equal(granted, ["leased"], "the rows granted an hour later")


@case("C.6", "externally owned work is never claimed, and its owner completes it")
async def externally_owned(kit: Kit) -> None:
    await kit.register("p", recovery="externally_owned")
    kit.clock.advance(3_600)
    receipt = await kit.claim(definitions=(WORK, EXTERNAL))
    expect_equal(receipt.claimed, (), "the rows granted")
    for _ in range(2):
        await kit.registry.execute(SetExternalRef(process_id="p", ref="job-7"))
    expect_equal((await kit.get("p")).state.external_ref, "job-7", "the external reference")
    await kit.complete("p", ExternalOwner("outside"), Completed(raw("done")))
    expect_equal(await kit.types("p"), ["process.external_ref_set", "process.completed"], "the log")


@case("C.6b", "a departed caller is told by the status, and its owner may still complete the process")
async def departed_callers(kit: Kit) -> None:
    await kit.register("p", recovery="externally_owned")
    for _ in range(2):
        await kit.registry.execute(RecordCallerDeparture(process_id="p", reason="gone"))
    record = await kit.get("p")
    expect_equal((record.status, record.is_live, record.outcome), ("caller_departed", False, None), "the record")
    await kit.complete("p", ExternalOwner("outside"), Completed(raw("late")))
    expect_equal((await kit.get("p")).outcome, Completed(raw("late")), "the outcome")
    expect_equal(await kit.types("p"), ["process.caller_departed", "process.completed"], "the log")
    await kit.register("q")
    with refusal(NotExternallyOwned, "a departure from a rerunnable process"):
        await kit.registry.execute(RecordCallerDeparture(process_id="q"))


@case("C.6c", "what Perdure never runs may declare no retry, limit, deadline, delay or engine")
async def externally_owned_declares_nothing(kit: Kit) -> None:
    refused: dict[str, Any] = {
        "retry": RetryPolicy(),
        "max_deaths": 1,
        "deadline_ms": 1_000,
        "delay_ms": 1,
        "definition": WORK,
    }
    for field, value in refused.items():
        with refusal(InvalidOption, f"externally_owned with {field}") as caught:
            await kit.register("p", **{"recovery": "externally_owned", field: value})
        expect_equal(caught.error.option, "engine" if field == "definition" else field, "the option named")
    with refusal(InvalidOption, "owner_bound with a retry policy") as caught:
        await kit.register("p", recovery="owner_bound", retry=RetryPolicy())
    expect_equal(caught.error.option, "retry", "the option named")
    expect_equal(await kit.registry.count(), 0, "the number of rows")


CASES = (
    authority_table,
    lease_gives_any_outcome,
    admission_excludes_lease,
    completing_twice,
    authority_is_checked_after_the_end,
    externally_owned,
    departed_callers,
    externally_owned_declares_nothing,
)
