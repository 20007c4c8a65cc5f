"""The schema: made, brought forward, and compared with what it must be."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

import asyncpg

from perdure.errors import ForeignStore, NewerSchema, StoreCorrupt
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.statements import Statements, migrations
from perdure.stores.postgres.url import Target, quoted

NEWEST = 2
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


async def ensure_schema(connection: Connection, target: Target) -> None:
    """Make the schema or bring it forward, in one transaction; refuse a foreign, newer or damaged one."""
    version = await read_version(connection, target)
    if version < NEWEST:
        await connection.execute(BEGIN)
        try:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _lock_of(target))  # until the transaction ends
            version = await read_version(connection, target)
            for statement in steps_after(target, version):
                await connection.execute(statement)
            await connection.execute("COMMIT")
        except BaseException:
            if not connection.is_closed() and connection.is_in_transaction():
                await connection.execute("ROLLBACK")
            raise
    await _verify(connection, target)


def steps_after(target: Target, version: int) -> list[str]:
    """The SQL that brings the schema from that version (0: there is none) to the newest."""
    made = [sql for number, sql in migrations(target.schema) if number > version]
    return [_make_schema(target.schema), *made] if version == 0 else made


def _make_schema(name: str) -> str:
    """Only where it is missing: IF NOT EXISTS asks for the right to make one even where it is there already."""
    looked_for = _literal(quoted(name))
    body = f"BEGIN IF to_regnamespace({looked_for}) IS NULL THEN CREATE SCHEMA {quoted(name)}; END IF; END"
    return f"DO {_literal(body)};\n"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def read_version(connection: Connection, target: Target) -> int:
    """The schema's version, 0 where there is none yet. Raises ForeignStore or NewerSchema."""
    sql = Statements("schema.sql", target.schema)
    exists, tables, ours = await _row(connection, sql, "standing", quoted=quoted(target.schema))
    if not exists or not tables:
        return 0
    if not ours:
        raise ForeignStore(
            target.name, f"the schema {target.schema!r} belongs to another program",
            "Choose another one: ?schema=NAME in the URL.",
        )  # fmt: skip
    (version,) = await _row(connection, sql, "version")
    if version > NEWEST:
        raise NewerSchema(
            target.name, f"it has schema {version}, this version knows up to {NEWEST}", "Upgrade Perdure on this host."
        )
    return int(version)


async def describe(connection: Connection, target: Target) -> list[str]:
    """What is in the schema, each thing on a line of its own, in order."""
    statement = Statements("schema.sql", target.schema)["described"]
    shown: str = await connection.fetchval("SELECT quote_ident($1)", target.schema)
    rows = await connection.fetch(statement.text, *statement.values({"quoted": quoted(target.schema), "shown": shown}))
    return sorted(row[0] for row in rows)


def expected() -> list[str]:
    return files(f"{__package__}.migrations").joinpath("expected.txt").read_text("utf-8").splitlines()


async def _verify(connection: Connection, target: Target) -> None:
    """What was added by others is theirs; what is missing or altered is named."""
    found = set(await describe(connection, target))
    missing = [line for line in expected() if line not in found]
    if missing:
        listed = "; ".join(missing[:3]) + ("; …" if len(missing) > 3 else "")
        raise StoreCorrupt(
            target.name, f"the schema {target.schema!r} lacks or has altered: {listed}",
            "Restore it, or make the data anew in another schema.",
        )  # fmt: skip


def _lock_of(target: Target) -> int:
    digest = hashlib.sha256(f"perdure schema {target.schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def _row(connection: Connection, sql: Statements, name: str, **values: Any) -> asyncpg.Record:
    row = await connection.fetchrow(sql[name].text, *sql[name].values(values))
    assert row is not None
    return row
