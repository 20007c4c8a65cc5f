"""What whoever administers the database does: look what stands, bring the schema forward, and grant."""

from __future__ import annotations

from typing import Literal

from perdure.errors import InvalidOption
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import raise_typed
from perdure.stores.postgres.schema import NEWEST, ensure_schema, read_version, steps_after
from perdure.stores.postgres.statements import in_schema
from perdure.stores.postgres.url import Target, parse_url, quoted
from perdure.stores.sql_files import read_statements

Access = Literal["worker", "reader"]


async def standing_version(url: str) -> int:
    """The version of the schema that the URL names, 0 where there is none. Creates nothing."""
    return (await _visited(parse_url(url), migrating=False))[0]


async def migrate(url: str) -> tuple[int, int]:
    """Make the schema or bring it forward, in one transaction; the versions before and after."""
    return await _visited(parse_url(url), migrating=True)


def migration_sql(url: str, version: int = 0) -> str:
    """What `migrate` does to a schema of that version (0: there is none), for psql. Asks no server."""
    if not 0 <= version <= NEWEST:
        raise InvalidOption("from", version, f"0 to {NEWEST}")
    return "\n".join(["BEGIN;\n", *steps_after(parse_url(url), version), "COMMIT;\n"])


def grants_sql(url: str, access: Access, role: str) -> str:
    """What a role needs to run processes, or to look at them."""
    if not role or "\0" in role:
        raise InvalidOption("role", role, "the name of a role")
    schema = parse_url(url).schema
    text = read_statements(f"{__package__}.queries", "grants.sql")[access] + ";\n"
    text = text.replace("SCHEMA perdure", f"SCHEMA {quoted(schema)}")
    return in_schema(text, schema).replace(":role", quoted(role))


async def _visited(target: Target, *, migrating: bool) -> tuple[int, int]:
    connections = Connections(target, 1)
    try:
        async with connections.one() as connection:
            before = await read_version(connection, target)
            if migrating:
                await ensure_schema(connection, target)
            return before, await read_version(connection, target)
    except Exception as error:
        raise_typed(error, target.name)
    finally:
        await connections.close()
