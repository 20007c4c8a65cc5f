"""What the claims of one batch choose from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from perdure.canonical import is_storable
from perdure.errors import InvalidOption
from perdure.stores.rows import Candidate
from perdure.transitions.commands import ClaimNext
from perdure.transitions.projection import lane

LARGEST_CLAIM = 10_000

Lanes = tuple[str, ...]


class Pool:
    """What the claims of a batch that look at the same lanes have to choose from, in claim order. One claim goes on
    where the one before it stopped: what was passed is claimed now, or can't be."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates, self._next = candidates, 0

    def take(self) -> Candidate | None:
        if self._next == len(self._candidates):
            return None
        self._next += 1
        return self._candidates[self._next - 1]


def lanes_of(claim: ClaimNext) -> Lanes:
    """Where a claim looks."""
    return tuple(lane(queue, definition) for queue, definition in product(claim.queues, claim.definitions))


def refused_claim(claim: ClaimNext) -> InvalidOption | None:
    """Why a claim can't be done at all."""
    if not 0 < claim.limit <= LARGEST_CLAIM:
        return InvalidOption("limit", claim.limit, f"1 to {LARGEST_CLAIM}")
    if claim.ttl_ms <= 0:
        return InvalidOption("ttl_ms", claim.ttl_ms, "more than 0")
    owner = claim.owner
    if not is_storable(f"{owner.name}{owner.incarnation}{claim.claim_id}{claim.token}"):
        return InvalidOption("owner", owner.name, "names without NUL and lone surrogates")
    return None
