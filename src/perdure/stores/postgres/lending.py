"""The user's code in a transaction of ours: on the user's loop, on a connection that is lent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from perdure.contract.registry import TransactionWork
from perdure.errors import NotTransactional
from perdure.stores.postgres.connections import Connection, Connections
from perdure.stores.postgres.faults import (
    RowsHeld,
    comes_of_loss,
    is_contended,
    is_lost,
    is_refused_in_bulk,
    raise_typed,
)
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.wanted import Wanted
from perdure.stores.registry import Result, Transaction
from perdure.transitions.commands import Receipt, RowCommand

MOST_LENT = 8
MOST_TRIES = 5
LOCK_WAIT_MS = 5_000
LIMITS = f"SET LOCAL idle_in_transaction_session_timeout = 60000; SET LOCAL lock_timeout = {LOCK_WAIT_MS}"
"""A program that stands still in a transaction must not hold its rows for ever."""


class Lender:
    """Used on the event loop of the user's code."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared.for_another_loop()
        self._connections: Connections | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def execute(self, work: TransactionWork) -> Result:
        """Both what the code writes and the command that it returns, or neither. What the code raises is raised.

        Where another transaction was in the way of the command, and the code has not failed, all is done again.
        """
        if self._connections is None:
            self._connections = Connections(self._shared.target, MOST_LENT, bound_s=60.0)
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._execute(work, self._connections)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _execute(self, work: TransactionWork, connections: Connections) -> Result:
        tries = 0
        while True:
            tries += 1
            code = _Code(work)
            try:
                async with connections.one() as connection:
                    return await self._transact(connection, code)
            except BaseException as error:
                if error is code.error:
                    raise
                if is_lost(error):
                    connections.drop_idle()
                if tries == MOST_TRIES or not (is_contended(error) or isinstance(error, RowsHeld)):
                    raise_typed(error, self._shared.store)

    async def close(self) -> None:
        """Once the code that has a connection has ended: whoever wants that sooner cancels it."""
        await self._idle.wait()
        if self._connections is not None:
            await self._connections.close()

    async def _transact(self, connection: Connection, code: _Code) -> Result:
        transaction = connection.transaction(isolation="read_committed")
        await transaction.start()
        try:
            await connection.execute(LIMITS)
            command = await self._run(connection, code)
            rows = PostgresRows(connection, self._shared, Wanted((command,)), wait_ms=LOCK_WAIT_MS)
            (result,) = await Transaction(rows, await rows.look()).run((command,))
            if isinstance(result, Receipt) and not result.replayed:
                await rows.commit_by(code.committing(transaction.commit))
            else:
                await _take_back(connection, transaction)
        except BaseException:
            await _take_back(connection, transaction)
            raise
        return result

    async def _run(self, connection: Connection, code: _Code) -> RowCommand:
        """The code may do as it likes with its own tables, but it must leave the transaction as it stands."""
        begun: str = await connection.fetchval("SELECT pg_current_xact_id()::text")
        command = await code.run(connection)
        try:
            stands = connection.is_in_transaction()
            stands = stands and begun == await connection.fetchval("SELECT pg_current_xact_id()::text")
        except asyncpg.InFailedSQLTransactionError:
            raise NotTransactional(
                self._shared.store, "a statement of the code in our transaction has failed, and the code went on",
                "Let the error out, or have the statement in a savepoint: async with connection.transaction().",
            ) from None  # fmt: skip
        if not stands:
            connection.terminate()  # its state is whatever the code has left
            raise NotTransactional(
                self._shared.store, "code in a transaction of ours may not commit it or roll it back",
                "Leave that to the step: what it wrote commits with its result. What it committed stands.",
            )  # fmt: skip
        return command


class _Code:
    """The user's code, and what it raised: that is its own, whatever it is, unless the connection was lost under it."""

    def __init__(self, work: TransactionWork) -> None:
        self._work = work
        self.error: BaseException | None = None

    async def run(self, connection: Connection) -> RowCommand:
        try:
            command = await self._work(connection)
        except BaseException as error:
            if not (connection.is_closed() and comes_of_loss(error)):
                self.error = error
                raise
            raise _lost() from error
        if connection.is_closed():  # and the code has not noticed
            raise _lost()
        return command

    def committing(self, commit: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The commit, with what the database finds only then wrong with what the code wrote: a deferred constraint.
        Ours are checked at once, in the statement that writes."""

        async def committed() -> None:
            try:
                await commit()
            except asyncpg.PostgresError as error:
                if is_refused_in_bulk(error):
                    self.error = error
                raise

        return committed


def _lost() -> asyncpg.ConnectionDoesNotExistError:
    return asyncpg.ConnectionDoesNotExistError("the connection was closed while code had it")


async def _take_back(connection: Connection, transaction: Any) -> None:
    """Hides no error: what was sent is undone by the server when the connection is gone."""
    try:
        if not connection.is_in_transaction():  # the code has ended it, or its commit has failed
            raise asyncpg.InterfaceError("there is no transaction")
        await transaction.rollback()
    except Exception:
        connection.terminate()
