"""What a drive does beside claiming: it settles what is due and delivers what was posted, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from perdure.clock import Moment
from perdure.contract.registry import Registry, Undelivered
from perdure.model.leases import DeathProof, Owner
from perdure.runtime.passes import deliver_posted, settle_due

MOST_DELIVERIES = 16
"""Batches in one drive: who posts without end must not keep it from ending."""


class Duties(msgspec.Struct, frozen=True):
    """`ended`: rows that nobody ran and that were ended. `woke`: other rows may be ready now that were not before."""

    ended: tuple[str, ...] = ()
    woke: bool = False


Tell = Callable[[Undelivered], None]


async def do_duties(
    registry: Registry, owner: Owner, now: Moment, proofs: Sequence[DeathProof], undelivered: Tell
) -> Duties:
    """`undelivered` is told of each posted command that could not be done, at once."""
    ended, settled = await _settle(registry, owner, now, proofs)
    delivered = await _deliver(registry, undelivered)
    return Duties(ended, settled or delivered)


async def _settle(
    registry: Registry, owner: Owner, now: Moment, proofs: Sequence[DeathProof]
) -> tuple[tuple[str, ...], bool]:
    """As long as that gets anything done: what is due already wakes nobody later."""
    ended: tuple[str, ...] = ()
    settled = False
    while True:
        page = await settle_due(registry, owner, now, proofs)
        ended, settled = ended + page.ended, settled or bool(page.settled)
        if not page.more or not (page.ended or page.settled):
            return ended, settled


async def _deliver(registry: Registry, undelivered: Tell) -> bool:
    delivered = False
    for _ in range(MOST_DELIVERIES):
        batch = await deliver_posted(registry)
        for one in batch.undelivered:
            undelivered(one)
        delivered = delivered or batch.delivered > 0
        if not batch.more:
            break
    return delivered
