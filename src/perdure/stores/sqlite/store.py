"""The SQLite registry: one file, one writer thread, readers beside it, other programs welcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future as ThreadFuture
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw
import msgspec

from perdure.clock import Clock, Moment, SystemClock
from perdure.codec import decode_progress, decode_registration, decode_state
from perdure.contract.moments import Moments, NoMoments
from perdure.contract.registry import CommitListener, TransactionWork
from perdure.errors import PerdureError, UnknownProcess
from perdure.model.events import Event
from perdure.model.leases import DeathProof, Enrolment, Lease, Owner
from perdure.model.progress import Progress
from perdure.model.queries import LARGEST_EVENT_PAGE, EventPage, Filter, Page, RecordPage, check_limit
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition
from perdure.stores.callers import Callers
from perdure.stores.group_commit import LARGEST_BATCH, Entry, single
from perdure.stores.not_joined import NotJoined
from perdure.stores.registry import Result
from perdure.stores.sqlite.connection import (
    check_sqlite_version,
    ensure_schema,
    open_connection,
    prepare_file,
    typed_errors,
)
from perdure.stores.sqlite.guest import in_this_context
from perdure.stores.sqlite.live import SqliteLiveWire
from perdure.stores.sqlite.owner_book import OwnerBook
from perdure.stores.sqlite.peers import Peers
from perdure.stores.sqlite.queries import load_queries
from perdure.stores.sqlite.queue_lock import WriteQueue
from perdure.stores.sqlite.reader import Reader
from perdure.stores.sqlite.rows import as_text, event_from_row, seeks_of
from perdure.stores.sqlite.writer import LOCK_BOUND_MS, Writer
from perdure.transitions.commands import Command, Renew, RenewReceipt

T = TypeVar("T")

MANY_CHANGES = 5_000


class SqliteRegistry(NotJoined):
    """A registry in one SQLite file. Made by `open`; used on the event loop that opened it.

    Every acknowledged command is on disk (WAL, synchronous=FULL). Several programs may share the file on one machine.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        unsafe_filesystem: bool,
        moments: Moments,
        vfs: str | None = None,
        lock_bound_ms: int = LOCK_BOUND_MS,
    ) -> None:
        self._path, self._clock = path, clock
        self.name = f"sqlite:///{path}"
        self._callers = Callers(self.name, lambda entries: self._writer.submit_all(entries))
        self._sql = load_queries("read.sql")
        with ExitStack() as opened, typed_errors(self.name):  # what fails half-way leaves nothing open
            self._connections = [open_connection(path, writer=True, vfs=vfs)]
            opened.callback(self._connections[0].close)
            ensure_schema(self._connections[0], self.name)
            self._connections[0].set_busy_timeout(0)  # waiting for the write lock is ours: see WriteQueue
            self._peers = Peers(path, clock, one_kernel=not unsafe_filesystem)
            self.live_wire = SqliteLiveWire(self._peers.live_folder, self._peers.program, self._callers.loop, clock)
            self._queue = WriteQueue(self._peers.folder, self.name)
            opened.callback(self._queue.close)
            for _ in range(2):
                self._connections.append(open_connection(path, writer=False, vfs=vfs))
                opened.callback(self._connections[-1].close)
            write, points, scans = self._connections
            self._writer = Writer(write, path, self._queue, clock, self._deliver, moments, lock_bound_ms)
            self._points, self._scans = Reader(points, path, self._sql), Reader(scans, path, self._sql)
            self._owners = OwnerBook(self._peers, self._writer, self._scans, self._sql["holders"])
            position: int = write.execute(self._sql["position"]).get
            self._writer.rows.position = self._seen = position
            opened.pop_all()
        for thread in (self._writer, self._points, self._scans):
            thread.start()

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        clock: Clock | None = None,
        unsafe_filesystem: bool = False,
        moments: Moments | None = None,
        vfs: str | None = None,
        lock_bound_ms: int = LOCK_BOUND_MS,
    ) -> SqliteRegistry:
        """Open or create the file. `lock_bound_ms` is how long a write waits for other programs before StoreLocked;
        `vfs` names one of SQLite's registered file layers instead of the default.

        Raises StoreReadOnly, StoreFull, StoreCorrupt, ForeignStore, NewerSchema, UnsafeFileSystem or
        StoreUnavailable; each names the file and what to do.
        """
        absolute = Path.cwd() / path  # links are not followed: the owners' folder stands beside the path as given
        check_sqlite_version(f"sqlite:///{absolute}")
        prepare_file(absolute, unsafe_ok=unsafe_filesystem)
        return cls(absolute, clock or SystemClock(), unsafe_filesystem, moments or NoMoments(), vfs, lock_bound_ms)

    async def close(self) -> None:
        if self._callers.closed or self._callers.forked:
            return
        self._callers.close()
        self._peers.forget_loop()
        self.live_wire.close()
        for thread in (self._writer, self._points, self._scans, self.live_wire):
            await asyncio.wrap_future(thread.stop())
        for ended in (self._writer, self._points, self._scans):
            ended.join()
        for connection in self._connections:
            connection.close()
        self._queue.close()
        self._peers.close()

    def now(self) -> Moment:
        return self._clock.now()

    # --- commands ---------------------------------------------------------------------------------------------

    async def execute(self, command: Command) -> Any:
        return single(await self._callers.submit((command,)))

    def execute_together(self, commands: Sequence[Command]) -> asyncio.Future[list[Result]]:
        return self._callers.submit(commands)

    async def execute_all(self, commands: Sequence[Command]) -> list[Result]:
        parts = [commands[at : at + LARGEST_BATCH] for at in range(0, len(commands), LARGEST_BATCH)]
        return [result for part in await asyncio.gather(*map(self._callers.submit, parts)) for result in part]

    async def execute_within(self, work: TransactionWork) -> Any:
        return single(await self._callers.submit((), in_this_context(work, self.name)))

    def renew_from_thread(self, command: Renew) -> ThreadFuture[RenewReceipt]:
        entry, renewed = self._callers.renewal(command)
        self._writer.submit(entry, first=True)
        return renewed

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        return self._callers.observe(listener)

    def _deliver(self, entries: Sequence[Entry], wrote: bool) -> bool:
        """In the writer thread: answer threads at once, the loop in one call, and ring the other programs."""
        for entry in entries:
            if entry.in_thread:
                entry.tell()
        self._callers.answer(entries)
        return self._peers.ring() if wrote else False

    # --- reads ------------------------------------------------------------------------------------------------

    async def get(self, process_id: str) -> ProcessRecord:
        self._callers.check()
        found = (await self._points.records((process_id,)))[process_id]
        if found is None:
            raise UnknownProcess(process_id)
        if isinstance(found, PerdureError):
            raise found
        return found

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        self._callers.check()
        found = await self._points.records(process_ids)
        return {id: record for id, record in found.items() if isinstance(record, ProcessRecord)}

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        self._callers.check()
        ids = {"ids": as_text([id for id in process_ids if id.isascii()])}
        text = await self._points.call(lambda c: str(self._get(c, "ended_among", ids)))
        return [*msgspec.json.decode(text, type=list[str]), *(id for id in process_ids if not id.isascii())]

    async def get_lease(self, process_id: str) -> Lease | None:
        if not process_id.isascii():
            return None  # no such id can exist
        row = await self._scan(lambda c: cast("Any", c.execute(self._sql["lease"], {"id": process_id}).fetchone()))
        if row is None:
            return None
        owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id, boot_expires_at, released = row
        return Lease(
            process_id, Owner(owner, incarnation), token, fence, claim_id, claimed_at, expires_at, boot_id,
            boot_expires_at, bool(released),
        )  # fmt: skip

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        check_limit(page.limit)
        bindings = {**_conditions(filter), "after": page.after_id or "", "limit": page.limit + 1}

        def read(connection: apsw.Connection) -> RecordPage:
            rows: Sequence[Any] = connection.execute(self._sql["list"], bindings).fetchall()
            records = tuple(
                ProcessRecord(decode_registration(body, id), decode_state(state, id))
                for id, body, state in rows[: page.limit]
            )
            return RecordPage(records, len(rows) > page.limit)

        return await self._scan(read)

    async def count(self, filter: Filter = Filter()) -> int:  # noqa: B008 - a frozen value
        bindings = _conditions(filter)
        return await self._scan(lambda c: int(self._get(c, "count", bindings)))

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        rows = await self._events("events_after", process_id, after=sequence, limit=limit + 1)
        return EventPage(tuple(event_from_row(process_id, row) for row in rows[:limit]), len(rows) > limit)

    async def recent_events(self, process_id: str, limit: int = 100) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        rows = await self._events("recent_events", process_id, limit=limit)
        return EventPage(tuple(event_from_row(process_id, row) for row in reversed(rows)), False)

    async def find_event(self, process_id: str, event_type: str, after_sequence: int) -> Event | None:
        rows = await self._events("find_event", process_id, type=event_type, after=after_sequence)
        return event_from_row(process_id, rows[0]) if rows else None

    async def progress_of(self, process_ids: Collection[str]) -> dict[str, Progress]:
        ids = {"ids": as_text([id for id in process_ids if id.isascii()])}
        rows = await self._scan(lambda c: cast("Any", c.execute(self._sql["progress_of"], ids).fetchall()))
        return {id: decode_progress(body, id) for id, body in rows}

    async def _events(self, name: str, process_id: str, **bindings: Any) -> Sequence[Any]:
        def read(connection: apsw.Connection) -> Sequence[Any]:
            row = self._get(connection, "row_of", {"id": process_id}) if process_id.isascii() else None
            if row is None:
                raise UnknownProcess(process_id)
            return cast("Sequence[Any]", connection.execute(self._sql[name], {"row": row, **bindings}).fetchall())

        return await self._scan(read)

    async def next_due_at_ms(self, lanes: Sequence[str], now: Moment) -> int | None:
        bindings = {"seeks": seeks_of(lanes), "now": now.wall_ms, "boot_now": now.boot_ms}
        return await self._scan(lambda c: cast("int | None", self._get(c, "next_due", bindings)))

    async def due_for_settling(self, now: Moment, incarnations: Collection[str], limit: int) -> Sequence[str]:
        bindings = {
            "now": now.wall_ms,
            "boot_now": now.boot_ms,
            "limit": limit,
            "dead": as_text(list(incarnations)),
        }
        text = await self._scan(lambda c: str(self._get(c, "due_for_settling", bindings)))
        return msgspec.json.decode(text, type=list[str])

    async def _scan(self, read: Callable[[apsw.Connection], T]) -> T:
        self._callers.check()
        return await self._scans.call(read)

    def _get(self, connection: apsw.Connection, name: str, bindings: dict[str, Any] | None = None) -> Any:
        """The one value of a statement that answers one."""
        return connection.execute(self._sql[name], bindings or {}).get

    # --- other programs ---------------------------------------------------------------------------------------

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None = None) -> None:
        await self._owners.enrol(owner, definitions)

    async def enrolled(self) -> tuple[Enrolment, ...]:
        self._callers.check()
        return await self._owners.enrolled()

    def lifeline(self, incarnation: str) -> int | None:
        return self._peers.lifeline(incarnation)

    async def withdraw(self, owner: Owner) -> None:
        await self._owners.withdraw(owner)

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        return await self._owners.prove_deaths()

    def on_peer_hint(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._peers.on_hint(self._callers.loop, listener)

    async def peer_changes(self) -> Sequence[str] | None:
        """One read of the change position; the ids only if another program has moved it."""
        position: int = await self._points.call(lambda c: int(self._get(c, "position")))
        rows, seen = self._writer.rows, self._seen
        self._seen = max(seen, position)
        if position <= rows.position and rows.foreign_position <= seen:
            return ()
        self._owners.peers_wrote()
        bindings = {"position": seen, "limit": MANY_CHANGES}
        text, found = await self._scan(
            lambda c: cast("Any", c.execute(self._sql["changed_since"], bindings).fetchone())
        )
        return None if found == MANY_CHANGES else msgspec.json.decode(text, type=list[str])


def _conditions(filter: Filter) -> dict[str, Any]:
    return {
        "statuses": as_text(filter.statuses) if filter.statuses else None,
        "definition": filter.definition,
        "queue": filter.queue,
        "parent": filter.parent,
        "prefix": filter.id_prefix,
    }
