"""Starts and signals in a transaction of the caller's own: they stand if and only if that one commits.

Whether it commits is never known here. So nothing of it is told to what the store knows of its rows and changes: this
program hears of it like all others, by the hint that goes out with the commit, or by its next look.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, cast

from perdure.codec import POSTED_CODEC, decode_registration, decode_state, encode_posted
from perdure.contract.moments import NoMoments
from perdure.errors import NotTransactional, PerdureError, StoreReadOnly, StoreUnavailable
from perdure.model.record import ProcessRecord
from perdure.stores.event_rows import event_from_row
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.drivers import Asks, adapted, sqlstate_of
from perdure.stores.postgres.faults import Overtaken
from perdure.stores.postgres.hints import channel_of
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import KnownRegistrations, OwnChanges, Shared, database_moment
from perdure.stores.postgres.statements import Statements
from perdure.stores.postgres.url import quoted
from perdure.stores.postgres.wanted import Wanted
from perdure.stores.registry import Transaction, event_name
from perdure.stores.rows import RowWrite
from perdure.transitions.commands import Receipt, Register, Signal
from perdure.transitions.decide import decide
from perdure.transitions.decision import Standing

MOST_TRIES = 5
SAVEPOINT = "perdure"
HINT = "joined"
"""A hint that no program takes for its own."""

_SCHEMA_MISSING = ("3F000", "42P01", "42883", "42703")
_EVENT = (
    "sequence", "type", "payload", "at", "replay_key", "operation_id", "operation_hash", "codec", "checksum",
)  # fmt: skip


class Joiner:
    """Used on whatever thread the caller's connection is used on. `home` is what the store's own connections call the
    schema they lead to."""

    def __init__(self, shared: Shared, home: str) -> None:
        self._shared, self._home = _Silent(shared), home
        self._store, self._schema = shared.store, shared.target.schema
        self._sql = Statements("joined.sql", self._schema)
        self._constants = {
            "sequence": f"{quoted(self._schema)}.process_rows", "channel": channel_of(self._schema), "hint": HINT,
        }  # fmt: skip

    async def register(self, command: Register, connection: object) -> Receipt:
        """Decided here and now, in the caller's transaction, by the pipeline that decides everything."""
        asks = adapted(connection, self._store)
        for _ in range(MOST_TRIES):
            try:
                async with self._savepoint(asks):
                    return await self._decide(command, asks)
            except Overtaken:  # somebody has committed the same id meanwhile: it is read now
                continue
        raise StoreUnavailable(self._store, "other transactions were in the way again and again", "Try again.")

    async def _decide(self, command: Register, asks: Asks) -> Receipt:
        rows = _JoinedRows(asks, self._shared.for_one(), Wanted((command,)), self._sql, self._constants, self._check)
        (result,) = await Transaction(rows, await rows.look()).run((command,))
        if isinstance(result, PerdureError):
            raise result
        assert isinstance(result, Receipt)
        await rows.write()
        return result

    async def post(self, command: Signal, connection: object) -> None:
        """Put down for delivery after the commit; what is known to be refused then is refused now."""
        asks = adapted(connection, self._store)
        async with self._savepoint(asks):
            name = event_name(command)
            found = await self._row(asks, "standing", id=command.process_id, replay_key=name and name.replay_key)
            self._check(found["home"])
            given = self._shared.time.given
            now = database_moment(found["now_ms"]) if given is None else given.now()
            decision = decide(_standing(command.process_id, found), command, now)
            if isinstance(decision, PerdureError):
                raise decision
            if not decision.replayed:
                await self._row(
                    asks, "post", id=command.process_id, codec=POSTED_CODEC, body=encode_posted(command),
                    **self._constants,
                )  # fmt: skip

    async def _row(self, asks: Asks, name: str, **values: Any) -> Any:
        statement = self._sql[name]
        return await asks.fetchrow(statement.text, *statement.values(values))

    def _check(self, home: str) -> None:
        if home != self._home:
            raise NotTransactional(
                self._store, "the connection that was given leads to another database, or a copy of this one",
                "Give one to the database of this store.",
            )  # fmt: skip

    @asynccontextmanager
    async def _savepoint(self, asks: Asks) -> AsyncIterator[None]:
        """What fails in it leaves the caller's transaction as it was, and as usable."""
        try:
            await asks.execute(f"SAVEPOINT {SAVEPOINT}")
        except Exception as error:
            raise self._told(error) from error
        try:
            yield
            await asks.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
        except BaseException as error:
            with suppress(Exception):  # the connection is lost, and the transaction with it
                await asks.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
                await asks.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    def _told(self, error: BaseException) -> BaseException:
        """What befalls the caller's own transaction stays his driver's error: he knows when to do all of it again."""
        match sqlstate_of(error):
            case "25P01":
                return NotTransactional(
                    self._store, "the connection that was given is in no transaction (it is in autocommit)",
                    "Begin one, and give its connection inside it.",
                )  # fmt: skip
            case "25P02":
                return NotTransactional(
                    self._store, "the transaction that was given has failed: a statement before has raised",
                    "Roll it back; put statements that may fail into a savepoint.",
                )  # fmt: skip
            case state if state in _SCHEMA_MISSING:
                return NotTransactional(
                    self._store, f"the connection that was given finds no schema {self._schema!r} of this version",
                    "Give one to the database of this store, and bring its schema forward (`perdure migrate`).",
                )  # fmt: skip
            case "25006":
                return StoreReadOnly(
                    self._store, "the transaction that was given is read-only", "Begin one that may write."
                )
            case "42501":
                return StoreReadOnly(
                    self._store, "the role of the connection that was given may not do this",
                    "`perdure migrate --sql --worker ROLE` prints the grants it needs.",
                )  # fmt: skip
        return error


class _Silent(Shared):
    """What transactions have in common where nobody may be told what one of them has done: it is used by several
    threads, and what is not committed must not be known."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.target, shared.time.given, NoMoments())
        self.registrations = KnownRegistrations(0)

    def for_one(self) -> Shared:
        """For one transaction. Leases of another boot are left to whoever claims."""
        one = copy(self)
        one.own_changes = OwnChanges()  # to this program it is like another's
        one.time = type(self.time)(self.time.given)
        one.boot_id = None if self.time.given is None else self.time.given.now().boot_id
        return one


class _JoinedRows(PostgresRows):
    """The row primitives in a transaction that somebody else begins and ends."""

    def __init__(
        self,
        asks: Asks,
        shared: Shared,
        wanted: Wanted,
        sql: Statements,
        constants: dict[str, str],
        check: Callable[[str], None],
    ) -> None:
        # They ask a connection for no more than it has here; to begin, commit and roll back is not theirs.
        super().__init__(cast("Connection", asks), shared, wanted)
        self._sql, self._constants, self._check = sql, constants, check
        self._new_row = 0

    async def _row(self, name: str, **values: Any) -> Any:
        found = await super()._row(name, **values, **self._constants)
        if name == "take_rows":
            self._check(found["home"])
            self._new_row = found["new_row"]
        return found

    async def insert_records(self, rows: Sequence[RowWrite]) -> None:
        """One at most: a name of its own comes with what was read, so that it belongs to this transaction alone."""
        (row,) = rows
        row.key = self._new_row
        self.written.insert(rows)

    async def write(self) -> None:
        if not self.written.is_empty:
            await self._write()


def _standing(process_id: str, found: Any) -> Standing:
    if found["state"] is None:
        return Standing()
    record = ProcessRecord(decode_registration(found["body"], process_id), decode_state(found["state"], process_id))
    columns = [found[name] for name in _EVENT]
    return Standing(record, keyed=None if columns[0] is None else event_from_row(process_id, columns))
