"""Where a database URL leads."""

from __future__ import annotations

from typing import cast

from perdure.clock import Clock
from perdure.contract.moments import Moments
from perdure.contract.registry import Registry
from perdure.errors import InvalidOption

URL_FORMS = "sqlite:///relative.db, sqlite:////absolute.db, or memory://"


async def open_registry(url: str, clock: Clock, moments: Moments | None = None) -> Registry:
    """Open the registry that a URL names. Database drivers are loaded here, not with the package."""
    if url in ("memory://", "memory:"):
        from perdure.stores.memory import MemoryRegistry

        return cast("Registry", MemoryRegistry(clock))
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from perdure.stores.sqlite.store import SqliteRegistry

        return cast("Registry", await SqliteRegistry.open(url.removeprefix("sqlite:///"), clock=clock, moments=moments))
    raise InvalidOption("url", url, URL_FORMS)
