"""A look at a database that changes nothing: what `perdure doctor` knows about a store and the server it lives on.

Every read is a transaction of its own that can't write and is cut short after a few seconds. The server hides from a
role what it may not see of others; that comes as None and is never taken for absence.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec

from perdure.codec import decode_registration, decode_state
from perdure.errors import DecodeError
from perdure.ids import Ids
from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.stores.owners import LockState, OwnerIdentity, OwnerReport, identify, is_alive_here, prove_death
from perdure.stores.postgres import schema
from perdure.stores.postgres.connections import Connection, Connections
from perdure.stores.postgres.faults import raise_typed
from perdure.stores.postgres.findings import Right
from perdure.stores.postgres.hints import PROBE_BOUND_S, channel_of
from perdure.stores.postgres.statements import Statements
from perdure.stores.postgres.url import parse_url, quoted
from perdure.stores.sql_files import read_statements

LONGEST_READ_MS = 5_000
BEGIN = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = {LONGEST_READ_MS}; "
    "SET LOCAL lock_timeout = 1000"
)

ReportT = TypeVar("ReportT", bound=msgspec.Struct)
Held = tuple[ProcessRecord, Lease | None]


class Difference(NamedTuple):
    """One thing of the schema that is not as it must be: `made_by` is the statement that makes a missing index."""

    kind: str
    name: str
    is_missing: bool
    made_by: str = ""


class Inspection:
    """Looks at the store that the URL names, and needs no schema to be there. Close it."""

    def __init__(self, url: str) -> None:
        self.target = replace(parse_url(url), relaxed=True)  # an unsafe server is told of, not refused
        self.store = self.target.name
        self._sql = Statements("inspect.sql", self.target.schema)
        self._connections = Connections(self.target, 1, bound_s=LONGEST_READ_MS / 1000 + 2)

    async def close(self) -> None:
        await self._connections.close()

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands in between, as far as is known after the first read."""
        return self._connections.are_pooled

    async def rows(self, name: str, kind: type[ReportT], **values: Any) -> list[ReportT]:
        """What the statement of that name answers. Raises StoreError."""
        return [msgspec.convert(dict(row), kind) for row in await self._read(name, **values)]

    async def row(self, name: str, kind: type[ReportT], **values: Any) -> ReportT:
        """The one row that it answers. Raises StoreError."""
        (row,) = await self.rows(name, kind, **values)
        return row

    async def value(self, name: str, **values: Any) -> Any:
        """The one value that it answers. Raises StoreError."""
        return (await self._read(name, **values))[0][0]

    async def _read(self, name: str, **values: Any) -> Sequence[Any]:
        statement = self._sql[name]
        given = {"quoted": quoted(self.target.schema), **values}
        async with self._looking() as connection:
            return await connection.fetch(statement.text, *statement.values(given))

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Connection]:
        """A transaction that can't write, waits for no lock for long, and is cut short. Raises StoreError."""
        try:
            async with self._connections.one() as connection:
                await connection.execute(BEGIN)
                try:
                    yield connection
                finally:
                    if not connection.is_closed():
                        await connection.execute("ROLLBACK")
        except Exception as error:
            raise_typed(error, self.store)

    # --- the schema -------------------------------------------------------------------------------------------

    async def version(self) -> int:
        """Of the schema, 0 where there is none. Raises ForeignStore, NewerSchema, or what else a read may."""
        async with self._looking() as connection:
            return await schema.read_version(connection, self.target)

    async def differences(self) -> list[Difference]:
        """What of the newest schema is missing or altered; an index that is not valid counts as missing."""
        async with self._looking() as connection:
            found = set(await schema.describe(connection, self.target))
        standing = {_name_of(line) for line in found}
        return [self._difference(line, standing) for line in schema.expected() if line not in found]

    def _difference(self, line: str, standing: Collection[tuple[str, str]]) -> Difference:
        kind, name = _name_of(line)
        made_by = re.sub(r" ON (\w+)", lambda on: f" ON {quoted(self.target.schema)}.{on[1]}", line[6:], count=1)
        return Difference(kind, name, (kind, name) not in standing, made_by if kind == "index" else "")

    async def lacking(self) -> list[Right]:
        """The rights of a worker that this role lacks, on what there is, in the order in which they are granted."""
        wanted = worker_rights()
        columns = ([getattr(right, field) for right in wanted] for field in Right.__struct_fields__)
        values = dict(zip(("kinds", "objects", "privileges"), columns, strict=True))
        return sorted(await self.rows("rights", Right, **values), key=wanted.index)

    # --- hints ------------------------------------------------------------------------------------------------

    async def hears_itself(self, ids: Ids) -> bool:
        """Whether a notification comes that was sent on another connection, as hosts prove it to themselves; behind a
        pooler they do not listen. Other programs take it for nothing, as it is marked like a probe of theirs."""
        channel, tag = channel_of(self.target.schema), hashlib.sha256(ids.token().encode()).hexdigest()[:12] + ".1"
        came = asyncio.Event()
        try:
            connection = await self._connections.connect()
            try:
                if self._connections.are_pooled:
                    return False
                await connection.add_listener(channel, lambda *said: came.set() if said[3] == tag else None)
                async with self._connections.one() as other:
                    await other.execute("SELECT pg_notify($1, $2)", channel, tag)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_BOUND_S):
                        await came.wait()
            finally:
                connection.terminate()
        except Exception as error:
            raise_typed(error, self.store)
        return came.is_set()

    # --- what lives on it -------------------------------------------------------------------------------------

    async def owners(self, boot_id: str) -> list[OwnerReport]:
        """`alive` is who runs on this machine and is seen there; from elsewhere nothing is proved."""
        me = identify("", "", boot_id, None)
        return [_judged(row, me) for row in await self._read("owners")]

    async def lapsed(self, now_ms: int, dead: Collection[str]) -> list[Held]:
        """Runs whose lease was given back or has lapsed, and those of owners proved dead (as if they had none)."""
        found = _decoded(await self._read("lapsed", now=now_ms, dead=list(dead)))
        return [
            (record, None if lease and not lease.released and lease.owner.incarnation in dead else lease)
            for record, lease in found
        ]

    async def departed(self) -> list[Held]:
        return _decoded(await self._read("departed"))


def was_cut_short(error: BaseException) -> bool:
    """Whether a look took longer than it may: it says nothing about what was looked for."""
    return isinstance(error.__cause__, asyncpg.QueryCanceledError | TimeoutError)


def worker_rights() -> list[Right]:
    """What grants.sql gives to a worker, one by one."""
    rights: list[Right] = []
    for line in read_statements(f"{__package__}.queries", "grants.sql")["worker"].split(";"):
        given = re.search(r"GRANT (.+) ON (SCHEMA|SEQUENCE|ALL FUNCTIONS IN SCHEMA)?(.+) TO :role", line, re.DOTALL)
        assert given is not None, line
        kind = {"SCHEMA": "schema", "SEQUENCE": "sequence", None: "table"}.get(given[2], "function")
        objects = [name.strip().removeprefix("perdure.") for name in given[3].split(",")]
        rights += [Right(kind, name, privilege) for name in objects for privilege in given[1].split(", ")]
    return rights


def _name_of(line: str) -> tuple[str, str]:
    """(column, events.at), (index, events_change), … of a line that describes one thing."""
    kind, _, rest = line.partition(" ")
    if kind == "index":
        rest = rest.removeprefix("CREATE ").removeprefix("UNIQUE ").removeprefix("INDEX ")
    return kind, rest.split(" ")[0]


def _judged(row: Any, me: OwnerIdentity) -> OwnerReport:
    incarnation, text, holder, held = row
    if text is None:
        why = "it holds leases and is not enrolled: others wait for their expiry"
        return OwnerReport(incarnation, holder, held, "unproven", why)
    owner = msgspec.json.decode(text, type=OwnerIdentity)
    where = f"pid {owner.pid} on {owner.host}"
    if owner.host == me.host:  # copies of one machine share its boot id
        proof = prove_death(owner, me, lambda _: LockState.UNTESTED, one_kernel=False)
        if proof is not None:
            return OwnerReport(incarnation, owner.name, held, "dead", f"{proof.method}: {proof.detail}", proof)
        if is_alive_here(owner, me):
            return OwnerReport(incarnation, owner.name, held, "alive", f"{where} is there, with its start time")
    return OwnerReport(incarnation, owner.name, held, "unproven", f"{where}: nothing proves it alive or dead from here")


def _decoded(rows: Sequence[Any]) -> list[Held]:
    """Rows that can't be read are nothing that a look can judge."""
    found: list[Held] = []
    for id, body, state, lease in rows:
        with suppress(DecodeError):
            record = ProcessRecord(decode_registration(body, id), decode_state(state, id))
            found.append((record, None if lease is None else msgspec.json.decode(lease, type=Lease)))
    return found
