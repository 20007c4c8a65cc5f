"""What all transactions of one store object have in common: its statements, its clock, and what it knows already."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.clock import Clock, Moment, SystemClock
from perdure.contract.moments import Moments
from perdure.model.registration import Registration
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.statements import Statements
from perdure.stores.postgres.url import Target, quoted
from perdure.stores.registration_cache import REGISTRATION_CACHE_BYTES, RegistrationCache

DATABASE_BOOT = "database"
"""The boot id of leases that the server's clock decides: it is one clock for all hosts, and its boots don't matter."""

READING_GOOD_FOR_MS = 10_000
ROWS_IN_BLOCK = 1_024
MOST_OWN_CHANGES = 200_000


def database_moment(now_ms: int) -> Moment:
    """A reading of the server's clock. It has one scale: leases are wall time here."""
    return Moment(now_ms, now_ms, DATABASE_BOOT)


class DatabaseTime:
    """What time it is on the server, as far as is known without asking: never ahead of it, but for a step back."""

    def __init__(self, given: Clock | None) -> None:
        self.given = given
        self._local = given or SystemClock()
        self._ahead_ms: list[tuple[int, int]] = []

    def heard(self, now_ms: int) -> None:
        """A reading has just arrived; it was taken before."""
        local_ms = self._local.now().boot_ms
        kept = [(at_ms, ahead_ms) for at_ms, ahead_ms in self._ahead_ms if at_ms > local_ms - READING_GOOD_FOR_MS]
        ahead_ms = now_ms - local_ms
        self._ahead_ms = [(at, ahead) for at, ahead in kept if ahead > ahead_ms] + [(local_ms, ahead_ms)]

    @property
    def was_heard_lately(self) -> bool:
        """Whether a reading is so fresh that the two clocks can't have drifted apart since."""
        return bool(self._ahead_ms) and self._local.now().boot_ms - self._ahead_ms[-1][0] < READING_GOOD_FOR_MS

    def was_ahead(self, now_ms: int) -> None:
        """What was believed is shown to be ahead of the server, which was stepped back: only this reading counts."""
        self._ahead_ms = []
        self.heard(now_ms)

    def now(self) -> Moment:
        if self.given is not None:
            return self.given.now()
        return database_moment(self._local.now().boot_ms + self._ahead_ms[0][1])

    @property
    def local(self) -> Clock:
        """The clock of this machine."""
        return self._local


Known = dict[str, tuple[int | None, Registration | None]]


class KnownRegistrations:
    """Registrations by process id, with the row they belong to."""

    def __init__(self, max_bytes: int = REGISTRATION_CACHE_BYTES) -> None:
        self._cache: RegistrationCache[str, tuple[int, Registration]] = RegistrationCache(max_bytes)

    def known(self, process_ids: Sequence[str]) -> Known:
        """For each id its row and registration, or nothing: an id may be used again once its process is gone, so a
        registration is good for that row alone."""
        return {id: self._cache.get(id) or (None, None) for id in process_ids}

    def knows(self, process_id: str) -> bool:
        return self._cache.get(process_id) is not None

    def put(self, row: int, registration: Registration) -> None:
        self._cache.put(registration.id, (row, registration), registration)


class NewRows:
    """Integer names for new rows, in blocks from a sequence. Names of what was rolled back are never used."""

    def __init__(self, sql: Statements, schema: str) -> None:
        self._sql, self._sequence = sql["next_rows"].text, f"{quoted(schema)}.process_rows"
        self._next = self._end = 0

    async def take(self, connection: Connection, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if self._next == self._end:
                first: int = await connection.fetchval(self._sql, self._sequence)
                if self._next == self._end:  # nobody else has fetched a block meanwhile
                    self._next, self._end = first, first + ROWS_IN_BLOCK
                else:
                    taken += range(first, first + min(ROWS_IN_BLOCK, count - len(taken)))
                    continue
            last = min(self._end, self._next + count - len(taken))
            taken += range(self._next, last)
            self._next = last
        return taken


class OwnChanges:
    """Change positions of this program's transactions, from which others' are told. Used by several threads."""

    def __init__(self) -> None:
        self.positions: set[int] = set()
        self._unconfirmed = False

    def note(self, position: int) -> None:
        """Before its commit. If nobody ever looks for others', the oldest knowledge goes."""
        if len(self.positions) >= MOST_OWN_CHANGES:
            self.positions.clear()
        self.positions.add(position)

    def note_unconfirmed(self, position: int) -> None:
        """Nobody here was told of it, so it is like another's, whether it has been looked over already or not."""
        self.positions.discard(position)
        self._unconfirmed = True

    def take_unconfirmed(self) -> bool:
        """Whether there was one since this was asked last."""
        found, self._unconfirmed = self._unconfirmed, False
        return found


class Shared:
    """See the module."""

    def __init__(self, target: Target, clock: Clock | None, moments: Moments) -> None:
        self.target, self.store = target, target.name
        self.time, self.moments = DatabaseTime(clock), moments
        self.sql = Statements("write.sql", target.schema)
        self.registrations = KnownRegistrations()
        self.new_rows = NewRows(self.sql, target.schema)
        self.boot_id: str | None = None
        """The boot whose leases are the only ones left, where a given clock decides."""
        self.own_changes = OwnChanges()

    def for_another_loop(self) -> Shared:
        """The same for use on another event loop: what is known is not shared between threads, but for our changes."""
        other = Shared(self.target, self.time.given, self.moments)
        other.own_changes, other.time = self.own_changes, self.time
        return other
