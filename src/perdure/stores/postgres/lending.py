"""The user's code in a transaction of ours: on the user's loop, on a connection that is lent to it."""

from __future__ import annotations

import asyncpg

from perdure.contract.registry import TransactionWork
from perdure.errors import NotTransactional
from perdure.stores.postgres.connections import Connection, Connections
from perdure.stores.postgres.faults import is_lost, typed
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.wanted import Wanted
from perdure.stores.registry import Result, Transaction
from perdure.transitions.commands import Receipt, RowCommand

MOST_LENT = 8
LOCK_WAIT_MS = 5_000
LIMITS = "SET LOCAL idle_in_transaction_session_timeout = 60000; SET LOCAL lock_timeout = 5000"
"""A program that stands still in a transaction must not hold its rows for ever."""


class Lender:
    """Used on the event loop of the user's code."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared.for_another_loop()
        self._connections: Connections | None = None

    async def execute(self, work: TransactionWork) -> Result:
        """Both what the code writes and the command that it returns, or neither. What the code raises is raised."""
        if self._connections is None:
            self._connections = Connections(self._shared.target, MOST_LENT, bound_s=60.0)
        code = _Code(work)
        try:
            async with self._connections.one() as connection:
                return await self._transact(connection, code)
        except BaseException as error:
            if code.error is error and not is_lost(error):
                raise
            if is_lost(error):
                self._connections.drop_idle()
            raise typed(error, self._shared.store) from error

    async def close(self) -> None:
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
            if not isinstance(result, Receipt) or result.replayed:
                await transaction.rollback()
                return result
            await rows.commit_by(transaction.commit)
        except BaseException:
            if not connection.is_closed() and connection.is_in_transaction():
                await transaction.rollback()
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
    """The user's code, and what it raised: that is its own, whatever it is."""

    def __init__(self, work: TransactionWork) -> None:
        self._work = work
        self.error: BaseException | None = None

    async def run(self, connection: Connection) -> RowCommand:
        try:
            return await self._work(connection)
        except BaseException as error:
            self.error = error
            raise
