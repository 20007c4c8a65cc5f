"""The user's code as a guest on the writer's connection: what it may do in a transaction of ours, and what not."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Coroutine
from typing import Any

import apsw

from perdure.contract.registry import TransactionWork
from perdure.errors import NotTransactional
from perdure.stores.rows import LentFailure
from perdure.stores.sqlite.connection import typed
from perdure.stores.sqlite.migrations import migrations
from perdure.stores.without_waiting import run_without_waiting
from perdure.transitions.commands import RowCommand

FORBIDDEN = {
    apsw.SQLITE_TRANSACTION: "begin, commit or roll back", apsw.SQLITE_PRAGMA: "change a setting",
    apsw.SQLITE_ATTACH: "attach a file", apsw.SQLITE_DETACH: "detach a file",
}  # fmt: skip
FORBIDDEN_ON_OURS = {
    apsw.SQLITE_INSERT: "insert into", apsw.SQLITE_UPDATE: "update", apsw.SQLITE_DELETE: "delete from",
    apsw.SQLITE_DROP_TABLE: "drop",
}  # fmt: skip
FORBIDDEN_BESIDE_OURS = {
    apsw.SQLITE_ALTER_TABLE: "alter", apsw.SQLITE_CREATE_TRIGGER: "make a trigger on",
    apsw.SQLITE_CREATE_INDEX: "make an index on",
}  # fmt: skip
"""Here SQLite names the table in the second place."""

FAULTS_OF_THE_STORE = (
    apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.ReadOnlyError, apsw.NoMemError, apsw.CantOpenError,
)  # fmt: skip


def own_tables() -> frozenset[str]:
    """The names of Perdure's own tables."""
    return frozenset(name for _, sql in migrations() for name in re.findall(r"CREATE TABLE (\w+)", sql))


def in_this_context(work: TransactionWork, store: str) -> TransactionWork:
    """The same work, run in the context of the caller wherever it is called: it knows its step and its branch."""
    context = contextvars.copy_context()

    async def elsewhere(connection: Any) -> RowCommand:
        return context.run(_run, work(connection), store)

    return elsewhere


def _run(running: Coroutine[Any, Any, RowCommand], store: str) -> RowCommand:
    waited = NotTransactional(
        store, "code in a transaction of SQLite has waited, while every other write waits for it",
        "Make it a plain function that does nothing but read and write this database.",
    )  # fmt: skip
    return run_without_waiting(running, lambda: waited)


class Guest:
    """Lends a connection. SQLite asks it about every statement that is prepared while it is lent. A statement that
    stands prepared already is not asked about, so ours that begin and end transactions have texts of their own.
    """

    def __init__(self, connection: apsw.Connection, store: str) -> None:
        self._connection, self._store = connection, store
        self._own_tables: frozenset[str] = frozenset()
        self._is_lent = False
        self._refused = ""

    def lend(self, work: TransactionWork) -> RowCommand:
        """What the code returns. Raises LentFailure with what it raises, and what befell the store as that."""
        if not self._own_tables:
            self._own_tables = own_tables()
            self._connection.authorizer = self._allows
        self._is_lent, self._refused = True, ""
        self._connection.exec_trace = self._is_still_open
        try:
            return self._result_of(work)
        except FAULTS_OF_THE_STORE as error:
            raise typed(error, self._store) from error
        except apsw.AuthError as error:
            raise LentFailure(self._not_allowed()) from error
        except apsw.ExecTraceAbort as error:
            raise LentFailure(self._rolled_back()) from error
        except BaseException as error:  # the user's: for whoever asked, and the transaction is taken back
            raise LentFailure(error) from error
        finally:
            self._is_lent = False
            self._connection.exec_trace = None

    def _result_of(self, work: TransactionWork) -> RowCommand:
        command = _run(work(self._connection), self._store)
        if not self._connection.in_transaction:
            raise self._rolled_back()
        return command

    def _is_still_open(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        """Asked before every statement: a conflict that rolls back (OR ROLLBACK, RAISE) ends the transaction without
        anybody's leave, and what came after it would commit by itself."""
        return self._connection.in_transaction

    def _rolled_back(self) -> NotTransactional:
        return NotTransactional(
            self._store, "a conflict has rolled back the transaction that the code was lent",
            "Let it raise what its statement raised, or resolve conflicts in another way than by ROLLBACK.",
        )  # fmt: skip

    def _not_allowed(self) -> NotTransactional:
        return NotTransactional(
            self._store, f"code in a transaction of ours may not {self._refused or 'do this'}",
            "It may read everything and write to tables of your own; the step commits them with its result.",
        )  # fmt: skip

    def _allows(self, action: int, first: str | None, second: str | None, _: str | None, __: str | None) -> int:
        if not self._is_lent:
            return apsw.SQLITE_OK
        if action in FORBIDDEN:
            self._refused = FORBIDDEN[action]
            return apsw.SQLITE_DENY
        for actions, table in ((FORBIDDEN_ON_OURS, first), (FORBIDDEN_BESIDE_OURS, second)):
            if action in actions and table in self._own_tables:
                self._refused = f"{actions[action]} Perdure's own table {table!r}"
                return apsw.SQLITE_DENY
        return apsw.SQLITE_OK
