"""Connections of one event loop: opened when they are needed, checked when they are new, thrown away when in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import asyncpg

from perdure.errors import StoreUnavailable
from perdure.stores.postgres.url import Target

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:  # generic only to type checkers
    Connection = asyncpg.Connection

CONNECT_BOUND_S = 5.0
STATEMENT_BOUND_S = 15.0
OLDEST_SERVER = 140_000
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

_SETTINGS_SQL = """
SELECT current_setting('server_version_num'), pg_backend_pid(), current_setting('fsync'),
       current_setting('full_page_writes'), current_setting('synchronous_commit')
"""
"""Asked by COPY: that needs no prepared statement, which would go astray where a pooler stands in between."""


class Connections:
    """At most `limit` connections to one target, for one event loop."""

    def __init__(self, target: Target, limit: int, *, bound_s: float = STATEMENT_BOUND_S) -> None:
        self._target, self._bound_s = target, bound_s
        self._free = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []
        self._pooled: bool | None = None if target.prepared is None else not target.prepared
        self._closed = False

    @property
    def are_pooled(self) -> bool:
        """Whether a pooler stands in between, as far as is known."""
        return bool(self._pooled)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """A connection that nobody else uses meanwhile. It is kept only if it comes back outside a transaction."""
        async with self._free:
            connection = await self._take()
            try:
                yield connection
            finally:
                if self._closed or not _is_sound(connection):
                    connection.terminate()
                else:
                    self._idle.append(connection)

    def drop_idle(self) -> None:
        """The server went away: what is idle is as dead as what failed."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                await connection.close(timeout=1.0)
            except Exception:  # it is being thrown away in any case
                connection.terminate()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self.connect()

    async def connect(self) -> Connection:
        """A new connection, checked; whoever asks for it by this name closes it."""
        prepared = not self._pooled
        connection = await self._open(prepared=prepared)
        try:
            await self._check(connection)
            if not (prepared and self._pooled):  # others may have found that out meanwhile
                return connection
        except BaseException:
            connection.terminate()
            raise
        connection.terminate()
        return await self.connect()

    async def _open(self, *, prepared: bool) -> Connection:
        return await asyncpg.connect(
            self._target.dsn, timeout=CONNECT_BOUND_S, command_timeout=self._bound_s,
            statement_cache_size=100 if prepared else 0, server_settings={"application_name": "perdure"},
        )  # fmt: skip

    async def _check(self, connection: Connection) -> None:
        """Refuse a server that we can't keep our promises on, and find out whether a pooler stands in between."""
        answer = BytesIO()
        await connection.copy_from_query(_SETTINGS_SQL, output=answer, format="csv")
        number, pid, *settings = answer.getvalue().decode().rstrip("\n").split(",")
        version = int(number)
        if version < OLDEST_SERVER:
            raise StoreUnavailable(
                self._target.name, f"PostgreSQL {version // 10_000} is too old", "Use version 14 or newer."
            )
        found = dict(zip(UNSAFE_SETTINGS, settings, strict=True))
        unsafe = [f"{name}={value}" for name, value in found.items() if value == UNSAFE_SETTINGS[name]]
        if unsafe and not self._target.relaxed:
            raise StoreUnavailable(
                self._target.name, f"the server may lose what was acknowledged ({', '.join(unsafe)})",
                "Turn it on, or say durability=relaxed in the URL.",
            )  # fmt: skip
        if self._pooled is None:  # a pooler answers in the server's place, and makes up the process id
            self._pooled = connection.get_server_pid() != int(pid)


def _is_sound(connection: Connection) -> bool:
    return not connection.is_closed() and not connection.is_in_transaction()
