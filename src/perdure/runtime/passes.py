"""Duties as passes: one bounded look each, that returns what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.clock import Moment
from perdure.contract.registry import Registry, Undelivered
from perdure.errors import PerdureError, Refused
from perdure.model.leases import DeathProof, Owner
from perdure.model.queries import Filter, Page
from perdure.model.record import ProcessRecord
from perdure.model.waits import ChildWait
from perdure.transitions.commands import ClaimToSettle, Receipt, RequestCancel, Settle, SettleWhy, Wake
from perdure.transitions.recovery import deadline_passed

SETTLING_PAGE = 256
CHILDREN_PAGE = 500


@dataclass(frozen=True, slots=True)
class SettlingReport:
    """`ended`: rows that nobody ran and that were ended. `settled`: ends whose consequences were served."""

    ended: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """`delivered` counts commands that were posted and are done; `undelivered` are those that can't be done."""

    delivered: int = 0
    undelivered: tuple[Undelivered, ...] = ()
    more: bool = False


async def deliver_posted(registry: Registry) -> DeliveryReport:
    """Do what callers have posted in transactions of their own. One batch; there may be more if it did anything."""
    delivery = await registry.deliver_posted()
    done = bool(delivery.receipts) or any(not one.kept for one in delivery.undelivered)
    return DeliveryReport(len(delivery.receipts), delivery.undelivered, done)


async def settle_due(registry: Registry, owner: Owner, now: Moment, proofs: Sequence[DeathProof]) -> SettlingReport:
    """End what nobody runs and whose end is due, and serve what follows from ends. One page."""
    due = await registry.due_for_settling(now, [proof.incarnation for proof in proofs], SETTLING_PAGE)
    if not due:
        return SettlingReport()
    records = await registry.get_many(due)
    ended, settled = [], []
    for record in records.values():
        if record.is_terminal:
            if await serve_end(registry, record):
                settled.append(record.id)
        elif await _end_unowned(registry, record, owner, now, tuple(proofs)):
            ended.append(record.id)
    return SettlingReport(tuple(ended), tuple(settled), len(due) == SETTLING_PAGE)


async def _end_unowned(
    registry: Registry, record: ProcessRecord, owner: Owner, now: Moment, proofs: tuple[DeathProof, ...]
) -> bool:
    why: SettleWhy = "deadline" if deadline_passed(record, now) else "deaths_exhausted"
    if record.state.abandon_request is not None:
        why = "reconciled_request"
    try:
        receipt: Receipt = await registry.execute(ClaimToSettle(process_id=record.id, why=why, by=owner, proofs=proofs))
    except Refused:  # somebody else came first, or it is not so any more: the next look decides afresh
        return False
    return receipt.answer == "applied"


async def serve_end(registry: Registry, record: ProcessRecord) -> bool:
    """Do what follows from an end in other rows, then mark it done. Safe to do twice, and by anybody."""
    if record.state.settle_due_at_ms is None:
        return False
    parent = record.registration.parent
    if parent is not None:
        try:
            await registry.execute(Wake(process_id=parent, wait=ChildWait(record.id), cause=f"child {record.status}"))
        except PerdureError as error:
            if not isinstance(error, Refused):
                raise
    if record.state.children:
        await _stop_children(registry, record)
    await registry.execute(Settle(process_id=record.id, served_sequence=record.state.last_sequence))
    return True


async def _stop_children(registry: Registry, record: ProcessRecord) -> None:
    """Ask the live children to stop whose policy says so; one that refuses keeps nobody else from being asked."""
    live = Filter(parent=record.id, statuses=("pending", "running", "waiting"))
    after_id: str | None = None
    while True:
        page = await registry.list(live, Page(CHILDREN_PAGE, after_id))
        commands = [
            RequestCancel(
                process_id=child.id, reason=f"its parent {record.id} has ended ({record.status})", by=record.id
            )
            for child in page.records
            if child.registration.parent_end == "cancel"
        ]
        for answer in await registry.execute_all(commands):
            if isinstance(answer, PerdureError) and not isinstance(answer, Refused):
                raise answer
        if not page.more:
            return
        after_id = page.records[-1].id
