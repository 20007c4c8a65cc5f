"""Which fault strikes whom, when and for how long: every kind in turn, in an order drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

import msgspec

from lab.postgres.proxy import DIRECTIONS, Direction

LEASE_TTL_MS = 3_000
RENEW_EVERY_MS = 1_000

Kind = Literal["cut", "delay", "half_close", "stall", "terminate", "kill", "pause", "crash"]
KINDS: tuple[Kind, ...] = ("cut", "delay", "half_close", "stall", "terminate", "kill", "pause", "crash")
ONE_WORKER: tuple[Kind, ...] = ("kill", "pause")
SERVER: tuple[Kind, ...] = ("terminate", "crash")

LASTS_MS: dict[Kind, tuple[int, int]] = {
    "cut": (0, 1_000),
    "delay": (1_000, 3_000),
    "half_close": (1_000, 4_500),
    "stall": (LEASE_TTL_MS + 300, LEASE_TTL_MS + 2_500),
    "terminate": (100, 600),
    "kill": (200, 2_500),
    "pause": (LEASE_TTL_MS + 300, LEASE_TTL_MS + 2_500),
    "crash": (0, 1_000),
}


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """`slot`: whose way or program is struck (None: the server, so all). `cut_after`: what was held back is lost, not
    delivered late. `share`: of the backends to be terminated."""

    kind: Kind
    slot: int | None
    lasts_ms: int
    delay_ms: int = 0
    direction: Direction = "to_server"
    cut_after: bool = False
    share: float = 0.0


class Planner:
    """All of the injector's chance, from one seed. The ways are those of the workers and, last, the load's."""

    def __init__(self, seed: int, workers: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it chooses whom to strike
        self._workers = workers

    def faults(self) -> Iterator[Fault]:
        while True:
            kinds = list(KINDS)
            self._random.shuffle(kinds)
            yield from map(self._fault, kinds)

    def _fault(self, kind: Kind) -> Fault:
        slots = self._workers if kind in ONE_WORKER else self._workers + 1
        chance = self._random
        return Fault(
            kind=kind,
            slot=None if kind in SERVER else chance.randrange(slots),
            lasts_ms=chance.randint(*LASTS_MS[kind]),
            delay_ms=chance.randint(50, 500) if kind == "delay" else 0,
            direction=chance.choice(DIRECTIONS),
            cut_after=chance.random() < 0.5,
            share=chance.uniform(0.2, 1.0) if kind == "terminate" else 0.0,
        )
