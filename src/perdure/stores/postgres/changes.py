"""What others have written: told by which transactions have ended between two looks.

A snapshot of PostgreSQL names every transaction that had not ended when it was taken. What ended between two snapshots,
and is not our own, is exactly what others did in between, in whatever order it was begun: nothing is skipped, and
nothing waits for a transaction that stays open. Each row's last change position is the transaction that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.stores.postgres.hints import Hints
from perdure.stores.postgres.reader import Reader
from perdure.stores.postgres.shared import Shared

MANY_CHANGES = 5_000
MANY_TRANSACTIONS = 10_000
LOOK_GOOD_FOR_MS = 2_500
QUIET_FOR_MS = 1_500


@dataclass(frozen=True)
class Snapshot:
    """All below `end` has ended, but for `open`."""

    end: int
    open: frozenset[int]

    @classmethod
    def read(cls, text: str) -> Snapshot:
        """From the text form of pg_snapshot, xmin:xmax:xip_list."""
        _, end, listed = text.split(":")
        return cls(int(end), frozenset(int(xid) for xid in listed.split(",") if xid))

    def ended_since(self, before: Snapshot) -> set[int]:
        """The transactions that ended after `before` was taken and before this one was."""
        return (set(range(before.end, self.end)) | before.open) - self.open


NOTHING = Snapshot(2**62, frozenset())
"""Since then nothing has ended."""


class Changes:
    """One program's side of it. `begin` before the first look."""

    def __init__(self, reader: Reader, shared: Shared, hints: Hints) -> None:
        self._reader, self._shared, self._hints = reader, shared, hints
        self._hinted = True
        self._posted: Sequence[str] = ()
        self._looked_at_ms: int | None = None
        self._seen = NOTHING
        self.others_ended = 0
        """Counts the looks that found other transactions ended than those of this program's batches: hints and owners
        are written by others of its own, and count too."""

    async def begin(self) -> None:
        """No look: whoever drives by hand may never look again, and must find what was posted since."""
        await self._read(NOTHING)
        self._looked_at_ms = None

    @property
    def nothing_posted(self) -> bool:
        """Whether a look a moment ago has found nothing that is to be delivered. Without looks nothing is known."""
        return not self._posted and self.is_fresh

    @property
    def is_fresh(self) -> bool:
        """Whether there was a look a moment ago."""
        if self._looked_at_ms is None:
            return False
        return 0 <= self._shared.time.local.now().boot_ms - self._looked_at_ms < LOOK_GOOD_FOR_MS

    async def look(self) -> Sequence[str] | None:
        """Ids of rows that others wrote since the last look, or that have something to be delivered to them; None: any
        row may have been written to."""
        if self._is_quiet():
            return ()
        self._hinted = False
        before, own = self._seen, self._shared.own_changes.positions
        try:
            changed = await self._read(before)
        except BaseException:
            self._hinted = True  # what was hinted at is still to be read
            raise
        now, unconfirmed = self._seen, self._shared.own_changes.take_unconfirmed()
        if not 0 <= now.end - before.end <= MANY_TRANSACTIONS:  # many, or a server that went back to an earlier state
            own.clear()
            self.others_ended += 1
            return None
        ended = now.ended_since(before)
        self.others_ended += not ended <= own
        own -= ended
        return None if unconfirmed or len(changed) > MANY_CHANGES else (*changed, *self._posted)

    def hint(self) -> None:
        """Others have written something: the next look asks."""
        self._hinted = True

    def _is_quiet(self) -> bool:
        """Hints arrive, and there was none since a look a moment ago. One may be lost: looks are only rarer then."""
        if self._hinted or self._posted or not self._hints.arrive or self._looked_at_ms is None:
            return False
        return 0 <= self._shared.time.local.now().boot_ms - self._looked_at_ms < QUIET_FOR_MS

    async def _read(self, since: Snapshot) -> Sequence[str]:
        """Take a snapshot; ids of the rows that others' transactions wrote which have ended since that one."""
        ((text, now_ms, self._posted, changed),) = await self._reader.rows(
            "look", seen_end=since.end, seen_open=list(since.open), own=list(self._shared.own_changes.positions),
            most=MANY_TRANSACTIONS, limit=MANY_CHANGES + 1,
        )  # fmt: skip
        self._shared.time.heard(now_ms)
        self._seen, self._looked_at_ms = Snapshot.read(text), self._shared.time.local.now().boot_ms
        found: Sequence[str] = changed
        return found
