"""Where a database URL leads."""

from __future__ import annotations

from typing import cast

from perdure.clock import Clock, SystemClock
from perdure.contract.moments import Moments
from perdure.contract.registry import Registry
from perdure.errors import InvalidOption
from perdure.stores.postgres.url import check_driver, is_postgres, without_password

URL_FORMS = (
    "sqlite:///relative.db, sqlite:////absolute.db, postgresql://user:password@host/database?schema=name, or memory://"
)


async def open_registry(url: str, clock: Clock, moments: Moments | None = None) -> Registry:
    """Open the registry that a URL names. Database drivers are loaded here, not with the package.

    On PostgreSQL the server's clock decides, unless a clock other than the machine's own was given.
    """
    if url in ("memory://", "memory:"):
        from perdure.stores.memory import MemoryRegistry

        return cast("Registry", MemoryRegistry(clock))
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from perdure.stores.sqlite.store import SqliteRegistry

        return cast("Registry", await SqliteRegistry.open(url.removeprefix("sqlite:///"), clock=clock, moments=moments))
    if is_postgres(url):
        check_driver(url)
        from perdure.stores.postgres.store import PostgresRegistry

        given = None if isinstance(clock, SystemClock) else clock
        return cast("Registry", await PostgresRegistry.open(url, clock=given, moments=moments))
    raise InvalidOption("url", without_password(url), URL_FORMS)
