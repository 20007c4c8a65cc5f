"""Who is killed when: every moment in turn, in an order drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from lab.kills.work import KINDS
from perdure.contract.moments import MOMENTS

OUTSIDE = "outside"
"""Killed by somebody else, at a random time."""

NEEDS_A_RENEWAL = "renewal.answered"
LONG_MS = (350, 700)
SHORT_MS = (1, 20)
MOST_HITS = 4


class Plan(msgspec.Struct, frozen=True):
    """How one worker is to die: at the n-th hit of a moment, or (moment `outside`) after `after_ms`."""

    moment: str
    hits: int
    after_ms: int


class Batch(msgspec.Struct, frozen=True):
    """Work to start: (id, kind, takes_ms)."""

    what: tuple[tuple[str, str, int], ...]


class Planner:
    """All of the lab's chance, from one seed."""

    def __init__(self, seed: int, batch: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it chooses whom to kill
        self._batch = batch
        self._deaths = self._endless_deaths()

    def victims(self, workers: int) -> list[int]:
        """One worker, or, three times in ten, all of them."""
        if self._random.random() < 0.3:
            return list(range(workers))
        return [self._random.randrange(workers)]

    def death(self) -> Plan:
        return next(self._deaths)

    def drains(self) -> bool:
        """Whether a worker is stopped in good order this round."""
        return self._random.random() < 0.1

    def batch(self, name: str, plan: Plan | None) -> Batch:
        """Work for one worker; one that shall die at a renewal gets work that lives to see one."""
        what = []
        for number in range(self._batch):
            long = number < 2 and plan is not None and plan.moment == NEEDS_A_RENEWAL
            takes_ms = self._random.randint(*(LONG_MS if long else SHORT_MS))
            what.append((f"{name}-{number}", self._random.choice(KINDS), takes_ms))
        return Batch(tuple(what))

    def _endless_deaths(self) -> Iterator[Plan]:
        while True:
            ways = [*MOMENTS, OUTSIDE]
            self._random.shuffle(ways)
            for moment in ways:
                hits = 1 if moment == NEEDS_A_RENEWAL else self._random.randint(1, MOST_HITS)
                yield Plan(moment, hits, self._random.randint(0, 60))
