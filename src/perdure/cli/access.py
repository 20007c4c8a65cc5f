"""How commands reach processes: a host that only looks, and ids that may be given by their beginning."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from perdure.errors import InvalidRequest, StoreUnavailable, UnknownProcess
from perdure.host import Host
from perdure.ids import check_process_id
from perdure.model.queries import Filter, Page
from perdure.stores.postgres.url import check_driver, is_postgres, without_password

SHORTEST_PREFIX = 4
SHOWN_MATCHES = 5


class AmbiguousId(InvalidRequest):
    """The beginning of an id that several processes share."""

    prefix: str
    matches: tuple[str, ...]

    def __init__(self, prefix: str, matches: Sequence[str], more: bool) -> None:
        listed = ", ".join(matches) + (", …" if more else "")
        super().__init__(
            f"several processes begin with {prefix!r}: {listed}. Give more of the id.",
            prefix=prefix,
            matches=tuple(matches),
        )


def sqlite_path(url: str) -> Path | None:
    """The file that an SQLite URL names, or None for other stores."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") and len(url) > 10 else None


def check_exists(url: str) -> None:
    """Refuse what a look must not create or touch: a missing, empty or foreign file."""
    path = sqlite_path(url)
    if path is None:
        return
    if not path.exists():
        raise StoreUnavailable(
            url,
            "there is no such file, and looking does not create one",
            "Check the path (--db, PERDURE_URL), or start something first: `perdure demo`.",
        )
    from perdure.stores.sqlite.inspection import Inspection

    Inspection.open(path).close()


async def check_schema_exists(url: str) -> None:
    """The same for a PostgreSQL database."""
    if not is_postgres(url):
        return
    check_driver(url)
    from perdure.stores.postgres.administration import standing_version

    if await standing_version(url) == 0:
        raise StoreUnavailable(
            without_password(url),
            "there is no such schema, and looking does not create one",
            "Check the URL (--db, PERDURE_URL), or make the schema first: `perdure migrate`.",
        )


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Host]:
    """A host on an existing database that runs nothing."""
    check_exists(url)
    await check_schema_exists(url)
    async with Host(url, work=False) as host:
        yield host


async def resolve(host: Host, given: str) -> str:
    """The id that was meant: an exact one, or the only one that begins so. Raises UnknownProcess or AmbiguousId."""
    check_process_id(given)
    try:
        await host.registry.get(given)
        return given
    except UnknownProcess:
        if len(given) < SHORTEST_PREFIX:
            raise
    page = await host.list(Filter(id_prefix=given), Page(limit=SHOWN_MATCHES))
    if not page.records:
        raise UnknownProcess(given)
    if len(page.records) > 1:
        raise AmbiguousId(given, [record.id for record in page.records], page.more)
    return page.records[0].id
