"""What this run hears of its own commits: which folders it took over, from whom, why, and how soon."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from perdure.model.events import Event, ProcessCompleted, ProcessStarted, Takeover

_decode = msgspec.json.Decoder(ProcessStarted).decode


class Ledger:
    """An event sink that remembers take-overs and ends. `first` hears of the first one from each dead owner."""

    def __init__(self, first: Callable[[Takeover, float], None]) -> None:
        self.taken_over: dict[str, Takeover] = {}
        self.given_back: set[str] = set()
        self.completed: set[str] = set()
        self.first_takeover_s: float | None = None
        self._first, self._owners = first, set[str]()
        self._began_s = time.monotonic()

    async def emit(self, event: Event) -> None:
        if event.type == ProcessCompleted.TYPE:
            self.completed.add(event.process_id)
        if event.type != ProcessStarted.TYPE:
            return
        takeover = _decode(event.payload).takeover
        if takeover is None:
            return
        if takeover.cause == "released":
            self.given_back.add(event.process_id)
            return
        after_s = time.monotonic() - self._began_s
        self.taken_over[event.process_id] = takeover
        if self.first_takeover_s is None:
            self.first_takeover_s = after_s
        if takeover.owner.incarnation not in self._owners:
            self._owners.add(takeover.owner.incarnation)
            self._first(takeover, after_s)
