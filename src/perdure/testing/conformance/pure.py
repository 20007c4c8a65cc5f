"""Section F: the pure floors, as a store runs them: every command on every row is decided or refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from perdure.errors import PerdureError
from perdure.model.leases import LeaseKey
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.registration import Identity, RetryPolicy
from perdure.model.waits import ChildWait, SignalWait, TimerWait
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.kit import Kit, raw, registration
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    AwaitEnd,
    Claimed,
    ClaimToSettle,
    Complete,
    CompletionAuthority,
    ExternalOwner,
    LeaseRight,
    Receipt,
    ReconciledAbandon,
    RecordCallerDeparture,
    Register,
    Release,
    RequestAbandon,
    RequestCancel,
    RowCommand,
    ScheduleRetry,
    SetExternalRef,
    Settle,
    SettleWhy,
    Signal,
    Start,
    Suspend,
    Wake,
    WorkflowKey,
)

ANYTHING = msgspec.Raw(b"{}")
OUTCOMES: tuple[Outcome, ...] = (
    Completed(raw({"a": [1.5, None, "é"]})),
    Failed(ErrorDetail("E", "m", "c", "t", False, 3, True)),
    Cancelled("enough", "someone"),
    Abandoned(Evidence("engine", "host", 5, "it says so")),
)
WHYS: tuple[SettleWhy, ...] = ("reconciled_request", "deaths_exhausted", "deadline", "cancelled_unowned")


def every_command(kit: Kit, id: str, key: LeaseKey, recovery: str) -> list[RowCommand]:
    """Every command that can name this row, under every authority."""
    executions = (LeaseRight(key), WorkflowKey(id, "w", "i-1"))
    authorities: tuple[CompletionAuthority, ...] = (*executions, ExternalOwner("x"), ReconciledAbandon("x"))
    wait, due = SignalWait("go", 1), kit.now_ms + 1_000
    commands: list[RowCommand] = [
        Register(process_id=id, registration=registration(id, recovery=recovery)),  # type: ignore[arg-type]
        Start(process_id=id, execution=WorkflowKey(id, "w", "i-1"), owner=kit.owner("engine")),
        AppendEvent(process_id=id, type="note", payload=raw(1), replay_key="k"),
        AppendEvent(process_id=id, type="step.completed", payload=raw(1)),
        Signal(process_id=id, name="go", payload=raw(1), signal_id="s"),
        Signal(process_id=id, name="undeclared", payload=raw(1)),
        Wake(process_id=id, wait=wait, cause="by hand"),
        Release(process_id=id, key=key),
        Release(process_id=id, key=key, not_entered="no engine"),
        Release(process_id=id, key=key, hold_ms=-1),
        RequestCancel(process_id=id, reason="enough"),
        RequestAbandon(process_id=id, by="x", reason="gone"),
        RecordCallerDeparture(process_id=id),
        SetExternalRef(process_id=id, ref="job"),
        Admit(process_id=id, workflow_key="w"),
        Settle(process_id=id, served_sequence=1),
        Settle(process_id=id, served_sequence=2),
        AwaitEnd(process_id=id),
        RowCommand(process_id=id),
    ]
    commands += [ClaimToSettle(process_id=id, why=why, by=kit.owner("sweeper")) for why in WHYS]
    for execution in executions:
        commands += [
            AppendEvent(process_id=id, type="step.completed", payload=raw(1), execution=execution),
            Suspend(process_id=id, execution=execution, waits=()),
            Suspend(process_id=id, execution=execution, waits=(TimerWait(2**70),)),
            ScheduleRetry(process_id=id, execution=execution, error=ErrorDetail("E"), due_at_ms=2**70),
            Suspend(process_id=id, execution=execution, waits=(wait, TimerWait(due), ChildWait("child"))),
            ScheduleRetry(process_id=id, execution=execution, error=ErrorDetail("E"), due_at_ms=due),
        ]
    commands += [Complete(process_id=id, outcome=o, authority=a) for o in OUTCOMES for a in authorities]
    return commands


Arrange = Callable[[Kit, str], Awaitable[object]]


async def _nothing(kit: Kit, id: str) -> None:
    return None


async def _lapsed(kit: Kit, id: str) -> None:
    kit.let_lapse(await _running(kit, id))


async def _running(kit: Kit, id: str) -> Claimed:
    receipt = await kit.claim(queues=(id,))
    return receipt.claimed[0]


async def _waiting(kit: Kit, id: str) -> None:
    await kit.suspend(await _running(kit, id), SignalWait("go", 1))


async def _ended(kit: Kit, id: str) -> None:
    await kit.complete(id, await _running(kit, id), Completed(raw(1)))


async def _admitted(kit: Kit, id: str) -> None:
    await kit.registry.execute(Admit(process_id=id, workflow_key="w"))


async def _departed(kit: Kit, id: str) -> None:
    await kit.registry.execute(RecordCallerDeparture(process_id=id))


async def _closed(kit: Kit, id: str) -> None:
    await kit.complete(id, ExternalOwner("x"), Completed(raw(1)))


SITUATIONS: dict[tuple[str, str], Arrange] = {
    ("rerunnable", "pending"): _nothing, ("rerunnable", "running"): _running, ("rerunnable", "lapsed"): _lapsed,
    ("rerunnable", "waiting"): _waiting, ("rerunnable", "ended"): _ended, ("rerunnable", "admitted"): _admitted,
    ("owner_bound", "pending"): _nothing, ("owner_bound", "running"): _running, ("owner_bound", "lapsed"): _lapsed,
    ("owner_bound", "ended"): _ended, ("owner_bound", "admitted"): _admitted,
    ("externally_owned", "pending"): _nothing, ("externally_owned", "departed"): _departed,
    ("externally_owned", "ended"): _closed,
}  # fmt: skip


async def _each(kit: Kit, recovery: str, situation: str, arrange: Arrange) -> None:
    count = len(every_command(kit, "p", LeaseKey("p", "a-1", "t", 1), recovery))
    for n in range(count):
        id = f"{recovery}.{situation}.{n}"
        if recovery == "externally_owned":
            await kit.register(id, recovery=recovery, queue=id, signals={"go": ANYTHING})
        else:
            retry = RetryPolicy() if recovery == "rerunnable" else None
            await kit.register(id, recovery=recovery, queue=id, signals={"go": ANYTHING}, retry=retry)
        await arrange(kit, id)
        lease = await kit.registry.get_lease(id)
        key = lease.key if lease is not None else LeaseKey(id, "a-1", "t", 1)
        before, log = await kit.get(id), await kit.types(id)
        command = every_command(kit, id, key, recovery)[n]
        (answer,) = await kit.registry.execute_all((command,))
        what = f"{type(command).__name__} on a {recovery} row that is {situation}"
        expect(isinstance(answer, Receipt | PerdureError), f"{what} is decided or refused, found {answer!r}")
        if isinstance(answer, PerdureError):
            expect_equal((await kit.get(id), await kit.types(id)), (before, log), f"what stands after a refused {what}")
        if before.outcome is not None:
            expect_equal((await kit.get(id)).outcome, before.outcome, f"the outcome after {what}")


@case("F.1", "every command on a row in every situation is decided or refused, and what is refused writes nothing")
async def every_command_is_decided(kit: Kit) -> None:
    for (recovery, situation), arrange in SITUATIONS.items():
        await _each(kit, recovery, situation, arrange)


@case("F.1b", "every command on an id that does not exist is refused, and creates nothing")
async def every_command_on_nothing(kit: Kit) -> None:
    commands = every_command(kit, "nobody", LeaseKey("nobody", "a-1", "t", 1), "rerunnable")[1:]
    for answer in await kit.registry.execute_all(commands):
        expect(isinstance(answer, PerdureError), f"a command about nobody is refused, found {answer!r}")
    expect_equal(await kit.registry.count(), 0, "the number of rows")


@case("F.5", "every outcome and every declared field reads back as it was written")
async def round_trips(kit: Kit) -> None:
    for n, outcome in enumerate(OUTCOMES):
        claimed = await kit.start(f"p{n}")
        await kit.complete(f"p{n}", claimed, outcome)
        expect_equal((await kit.get(f"p{n}")).outcome, outcome, f"outcome {n}")
    declared = registration(
        "full", input=raw({"é": [1, 2.5, "\u2028"]}), retry=RetryPolicy(9, 1, 1.5, 2, 0.5, ("A", "B")), max_deaths=0,
        deadline_ms=7, delay_ms=8, queue="q", priority=0, identity=Identity("k", "l"), signals={"s": ANYTHING},
        event_types={"e": msgspec.Raw(b'{"type":"string"}')}, originator="o", caused_by="c", parent="p0",
        wake_target="w",
    )  # fmt: skip
    await kit.registry.execute(Register(process_id="full", registration=declared))
    expect_equal((await kit.get("full")).registration, declared, "the registration")
    listed: Sequence[object] = [r.registration for r in (await kit.registry.list()).records]
    expect(declared in listed, "the registration, read in a list")


CASES = (every_command_is_decided, every_command_on_nothing, round_trips)
