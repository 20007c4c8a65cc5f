"""What each error of PostgreSQL, its driver or the network means to a caller."""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn

import asyncpg

from perdure.errors import (
    DecodeError,
    OutcomeUnknown,
    PerdureError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)


class RowsHeld(Exception):
    """Somebody else's transaction holds these rows; nothing was decided."""

    def __init__(self, process_ids: Collection[str]) -> None:
        super().__init__(", ".join(sorted(process_ids)))
        self.process_ids = frozenset(process_ids)


class Overtaken(Exception):
    """Between reading and writing somebody else has inserted a row or renewed a lease: what was decided is void."""


class Unconfirmed(Exception):
    """The commit was sent, and its answer never came."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(repr(cause))
        self.cause = cause


LOST = (
    asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError, asyncpg.TooManyConnectionsError, asyncpg.InternalClientError, OSError, EOFError,
)  # fmt: skip
"""The connection is gone or was never there (TimeoutError is an OSError)."""

CONTENDED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, Overtaken)
"""The database gave the transaction up for the sake of another; the same again may go through."""

REFUSED = (
    asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, asyncpg.ProgramLimitExceededError,
    asyncpg.RaiseError, DecodeError, ValueError, OverflowError,
)  # fmt: skip


def is_lost(error: BaseException) -> bool:
    """Whether the connection is to blame: on a new one the same may go well."""
    return isinstance(error, LOST) and not isinstance(error, ValueError)  # which the driver says of bad arguments


def is_contended(error: BaseException) -> bool:
    return isinstance(error, CONTENDED)


def is_refused_in_bulk(error: BaseException) -> bool:
    """Whether the fault may lie in one of the commands: what the database refuses, a value that can't be written, or a
    damaged row that one names."""
    return isinstance(error, REFUSED) and not is_lost(error)


def comes_of_loss(error: BaseException | None) -> bool:
    """Whether it is, or was raised over, an error that blames the connection."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if is_lost(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def raise_typed(error: BaseException, store: str) -> NoReturn:
    """In an except clause: raise what `typed` says, over what was caught; an error is never the cause of itself."""
    told = typed(error, store)
    if told is error:
        raise error
    raise told from error


def typed(error: BaseException, store: str) -> BaseException:
    """The error to be raised: which store, what is wrong, what to do. A PerdureError stays what it is."""
    if isinstance(error, PerdureError):
        return error
    found = _typed(error, store)
    if found is not None:
        found.__cause__ = error
        return found
    return error


def _typed(error: BaseException, store: str) -> StoreError | None:
    said = _said(error)
    match error:
        case Unconfirmed():
            return OutcomeUnknown(
                store, f"the answer of a commit was lost ({_said(error.cause)})",
                "Ask again with the same operation id.",
            )  # fmt: skip
        case asyncpg.DiskFullError():
            return StoreFull(store, "the server's disk is full", "Free some space; nothing acknowledged was lost.")
        case asyncpg.ReadOnlySQLTransactionError():
            return StoreReadOnly(
                store, "this server takes no writes (a standby, or read-only by setting)", "Connect to the primary."
            )
        case asyncpg.InsufficientPrivilegeError():
            return StoreReadOnly(
                store, f"the role may not do this ({said})", "`perdure migrate --sql` prints the grants it needs."
            )
        case asyncpg.LockNotAvailableError() | RowsHeld():
            return StoreLocked(
                store, "somebody else's transaction holds a row past the bound",
                "Find it in pg_stat_activity (state 'idle in transaction') and end it, then try again.",
            )  # fmt: skip
        case asyncpg.DataCorruptedError() | asyncpg.IndexCorruptedError():
            return StoreCorrupt(store, f"the database is damaged ({said})", "Restore it from a backup.")
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return StoreUnavailable(
                store, "the server does not let this role in", "Check role, password and pg_hba.conf."
            )
        case asyncpg.InvalidCatalogNameError():
            return StoreUnavailable(store, "there is no such database", "Create it (createdb), or check its name.")
        case asyncpg.TooManyConnectionsError():
            return StoreUnavailable(
                store, "the server has no connection left", "Raise max_connections, or put a pooler in between."
            )
        case asyncpg.QueryCanceledError():
            return StoreUnavailable(
                store, f"the server cancelled a statement ({said})", "Check statement_timeout and the server's load."
            )
        case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError() | asyncpg.InvalidSchemaNameError():
            return StoreUnavailable(
                store, f"the schema is not there any more ({said})", "Restore it, or open the store again."
            )
        case asyncpg.DeadlockDetectedError() | asyncpg.SerializationError() | Overtaken():
            return StoreUnavailable(store, f"other transactions were in the way again and again ({said})", "Try again.")
        case asyncpg.InvalidSQLStatementNameError() | asyncpg.DuplicatePreparedStatementError():
            return StoreUnavailable(
                store, f"prepared statements go astray, as a pooler stands in between ({said})",
                "Say prepared=no in the URL, or leave that option out.",
            )  # fmt: skip
        case TimeoutError():
            return StoreUnavailable(store, "the server did not answer in time", "Check the network and its load.")
        case _ if is_lost(error):
            return StoreUnavailable(
                store, f"the server can't be reached ({said})", "Check that it runs and is reachable."
            )
        case asyncpg.PostgresError():
            return StoreUnavailable(store, said, "This is not expected; please report it.")
    return None


def _said(error: BaseException) -> str:
    """What it says of itself in one line; never what was sent."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}".rstrip(": ")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return str(error).partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
