"""Roles with no rights but those that are granted, for one test each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from perdure.stores.postgres import administration
from tests.postgres.server import server_url
from tests.postgres.worlds import World


def with_login(user: str, password: str) -> str:
    parts = urlsplit(server_url())
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


@asynccontextmanager
async def granted(w: World, access: administration.Access) -> AsyncIterator[tuple[str, str]]:
    """A role's name, and the URL by which it comes to the world's schema."""
    name = f"{access}_of_{w.schema}"
    await w.sql.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'pw-of-role'")
    try:
        await w.sql.execute(administration.grants_sql(f"{server_url()}?schema={w.schema}", access, name))
        yield name, f"{with_login(name, 'pw-of-role')}?schema={w.schema}"
    finally:
        await w.sql.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
