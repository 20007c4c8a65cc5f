"""A caller's own connection, whatever its driver: asyncpg, psycopg 3, or SQLAlchemy on one of them.

A connection is known by the names of its class and of the package that this comes from; no driver is imported for it.
The adapters are coroutines throughout. Those of drivers that block never wait, so that they can be run on the calling
thread without an event loop.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

from perdure.errors import NotTransactional

KNOWN = (
    "an asyncpg.Connection, a psycopg Connection or AsyncConnection, or SQLAlchemy's Connection, Session, "
    "AsyncConnection or AsyncSession"
)
_NUMBERED = re.compile(r"\$(\d+)")


class Asks(Protocol):
    """What our statements need of a connection. Rows have their columns by name and by place."""

    async def execute(self, sql: str, *values: Any) -> object: ...

    async def fetchrow(self, sql: str, *values: Any) -> Any: ...


class Row(Sequence[Any]):
    """A row of a driver that has no rows of this kind."""

    def __init__(self, places: dict[str, int], values: Sequence[Any]) -> None:
        self._places, self._values = places, values

    def __getitem__(self, key: Any) -> Any:
        return self._values[self._places[key] if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._values)


class _Psycopg:
    """The values stand in the statement by name, as this driver has it; nothing stays prepared for its sake."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, sql: str, *values: Any) -> object:
        with self._cursor("Cursor") as cursor:
            return cursor.execute(*_named(sql, values), prepare=False)

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        with self._cursor("Cursor") as cursor:
            return cursor.execute(*_named(sql, values), prepare=False).fetchone()

    def _cursor(self, kind: str) -> Any:
        """One of the driver's plain ones: the caller's own may take other placeholders."""
        return getattr(sys.modules["psycopg"], kind)(self._connection, row_factory=_rows_of)


class _AsyncPsycopg(_Psycopg):
    async def execute(self, sql: str, *values: Any) -> object:
        async with self._cursor("AsyncCursor") as cursor:
            return await cursor.execute(*_named(sql, values), prepare=False)

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        async with self._cursor("AsyncCursor") as cursor:
            return await (await cursor.execute(*_named(sql, values), prepare=False)).fetchone()


class _Sqlalchemy:
    """A session is asked for its connection each time: that begins the session's transaction where it hasn't begun."""

    def __init__(self, connection: Any, store: str, is_session: bool) -> None:
        self._connection, self._store, self._is_session = connection, store, is_session

    async def execute(self, sql: str, *values: Any) -> object:
        await self.fetchrow(sql, *values)
        return None

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        connection = self._connection.connection() if self._is_session else self._connection
        return _first(connection.exec_driver_sql(*self._bound(connection, sql, values)))

    def _bound(self, connection: Any, sql: str, values: Sequence[Any]) -> tuple[Any, ...]:
        dialect = connection.dialect
        if (dialect.name, dialect.driver) == ("postgresql", "psycopg"):
            return _named(sql, values)
        if (dialect.name, dialect.driver) == ("postgresql", "asyncpg"):
            return (sql, tuple(values)) if values else (sql,)
        raise NotTransactional(
            self._store, f"the connection that was given is one of {dialect.name}+{dialect.driver}",
            "Give one of postgresql+asyncpg or postgresql+psycopg, to the database of this store.",
        )  # fmt: skip


class _AsyncSqlalchemy(_Sqlalchemy):
    async def fetchrow(self, sql: str, *values: Any) -> Any:
        connection = await self._connection.connection() if self._is_session else self._connection
        return _first(await connection.exec_driver_sql(*self._bound(connection, sql, values)))


_Maker = Callable[[Any, str], Asks]
_MAKERS: dict[tuple[str, str], tuple[bool, _Maker]] = {
    ("asyncpg", "Connection"): (True, lambda c, _: c),
    ("asyncpg", "PoolConnectionProxy"): (True, lambda c, _: c),
    ("psycopg", "Connection"): (False, lambda c, _: _Psycopg(c)),
    ("psycopg", "AsyncConnection"): (True, lambda c, _: _AsyncPsycopg(c)),
    ("sqlalchemy", "Connection"): (False, partial(_Sqlalchemy, is_session=False)),
    ("sqlalchemy", "Session"): (False, partial(_Sqlalchemy, is_session=True)),
    ("sqlalchemy", "AsyncConnection"): (True, partial(_AsyncSqlalchemy, is_session=False)),
    ("sqlalchemy", "AsyncSession"): (True, partial(_AsyncSqlalchemy, is_session=True)),
}
"""By package and class: whether it belongs to an event loop, and its adapter."""


def _maker_of(connection: object) -> tuple[bool, _Maker] | None:
    for kind in type(connection).__mro__:
        found = _MAKERS.get((kind.__module__.partition(".")[0], kind.__name__))
        if found is not None:
            return found
    return None


def needs_a_loop(connection: object) -> bool:
    """Whether it can be used only on the event loop that it belongs to."""
    found = _maker_of(connection)
    return found is not None and found[0]


def adapted(connection: object, store: str) -> Asks:
    """The connection as our statements take it. Raises NotTransactional for what is none, or is closed."""
    found = _maker_of(connection)
    if found is None:
        kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
        raise NotTransactional(store, f"connection= was given a {kind}, in whose transaction nothing can be written",
                               f"Give {KNOWN}.")  # fmt: skip
    if _is_closed(connection):
        raise NotTransactional(
            store, "the connection that was given is closed", "Give one that is open, in a transaction of yours."
        )
    return found[1](connection, store)


def _is_closed(connection: Any) -> bool:
    closed = getattr(connection, "is_closed", None) or getattr(connection, "closed", False)
    try:
        return bool(closed() if callable(closed) else closed)
    except Exception:  # it was given back to its pool
        return True


def sqlstate_of(error: BaseException) -> str | None:
    """The code that the server gave the error, whatever driver has raised it."""
    for one in (error, getattr(error, "orig", None)):
        state = getattr(one, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


# --- statements and rows, as drivers take and give them ----------------------------------------------------------


@lru_cache(maxsize=64)
def _with_names(sql: str) -> str:
    return _NUMBERED.sub(r"%(v\1)s", sql.replace("%", "%%"))


def _named(sql: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        return (sql,)
    return _with_names(sql), {f"v{place}": _plain(value) for place, value in enumerate(values, 1)}


def _plain(value: Any) -> Any:
    """To psycopg a tuple is a record; our columns are arrays."""
    return list(value) if isinstance(value, tuple) else value


def _rows_of(cursor: Any) -> Callable[[Sequence[Any]], Row]:
    places = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda values: Row(places, values)


def _first(result: Any) -> Row | None:
    if not result.returns_rows:
        return None
    places = {name: place for place, name in enumerate(result.keys())}
    values = result.first()
    return None if values is None else Row(places, tuple(values))
