"""A store of a test's own on the run's server, and the verbs that its tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from perdure.contract.moments import Moments
from perdure.model.leases import Owner
from perdure.model.registration import Registration
from perdure.stores.postgres.store import PostgresRegistry
from perdure.testing.conformance.kit import WORK, raw
from perdure.transitions.commands import AppendEvent, ClaimNext, ClaimReceipt, Receipt, Register
from tests.postgres.server import direct_url, schema_of, server_url

LONGEST_WAIT_S = 20.0


def run(test: Coroutine[Any, Any, None], bound_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(bound_s):
            await test

    asyncio.run(bounded())


class World:
    """One schema; `registry` is open on it, `sql` is a plain connection to the same database."""

    def __init__(self, registry: PostgresRegistry, sql: Any, schema: str) -> None:
        self.registry, self.sql, self.schema = registry, sql, schema

    async def peer(self, **options: Any) -> PostgresRegistry:
        """Another registry on the same schema; whoever asks for it closes it."""
        return await PostgresRegistry.open(server_url(), self.schema, **options)

    async def register(self, id: str, **declared: Any) -> Receipt:
        receipt: Receipt = await self.registry.execute(register(id, **declared))
        return receipt

    async def append(self, id: str, kind: str = "note") -> Receipt:
        receipt: Receipt = await self.registry.execute(append(id, kind))
        return receipt

    async def claim(self, owner: str = "a", limit: int = 100, **fields: Any) -> ClaimReceipt:
        receipt: ClaimReceipt = await self.registry.execute(claim(owner, limit, **fields))
        return receipt

    async def fetchval(self, query: str, *values: Any) -> Any:
        """`{s}` in the query stands for the schema."""
        return await self.sql.fetchval(query.replace("{s}", f'"{self.schema}"'), *values)

    async def lapse(self, *ids: str) -> None:
        """Have the leases of these rows expire."""
        await self.sql.execute(
            f'UPDATE "{self.schema}".leases AS l SET expires_at = 1, boot_expires_at = 1 '
            f'FROM "{self.schema}".processes AS p WHERE p.row = l.row AND p.id = ANY ($1)', list(ids),
        )  # fmt: skip

    @asynccontextmanager
    async def holding(self, *ids: str, lease: bool = False) -> AsyncIterator[Any]:
        """Somebody else's transaction that holds these rows, or their leases, while the block runs."""
        other = await asyncpg.connect(direct_url())
        try:
            await other.execute("BEGIN")
            joined = f'JOIN "{self.schema}".leases AS l USING (row)' if lease else ""
            found = await other.fetch(
                f'SELECT p.id FROM "{self.schema}".processes AS p {joined} WHERE p.id = ANY ($1) ORDER BY p.id '
                f"FOR UPDATE OF {'l' if lease else 'p'}", list(ids),
            )  # fmt: skip
            assert len(found) == len(ids)
            yield other
        finally:
            await other.close()


@asynccontextmanager
async def world(folder: Path, *, moments: Moments | None = None, **options: Any) -> AsyncIterator[World]:
    schema = schema_of(folder / "store")
    registry = await PostgresRegistry.open(server_url(), schema, moments=moments, **options)
    sql = await asyncpg.connect(direct_url())
    try:
        yield World(registry, sql, schema)
    finally:
        await registry.close()
        await sql.close()


async def until(holds: Callable[[], Awaitable[Any]], what: str, within_s: float = LONGEST_WAIT_S) -> None:
    """Look again until it holds."""
    try:
        async with asyncio.timeout(within_s):
            while not await holds():  # noqa: ASYNC110 - other programs bring it about
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {within_s} s") from None


async def waiting(w: World) -> int:
    """How many statements about this schema wait for a lock."""
    await w.sql.execute("SELECT pg_stat_clear_snapshot()")  # it is kept for the whole transaction otherwise
    count: int = await w.sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, $1) > 0", w.schema
    )
    return count


def register(id: str, **declared: Any) -> Register:
    fields = {"definition": WORK, "recovery": "rerunnable", **declared}
    return Register(process_id=id, registration=Registration(id=id, **fields))


def append(id: str, kind: str = "note") -> AppendEvent:
    return AppendEvent(process_id=id, type=kind, payload=raw(None))


_claims = 0


def claim(owner: str = "a", limit: int = 100, **fields: Any) -> ClaimNext:
    global _claims
    _claims += 1
    asked = {
        "claim_id": f"claim-{_claims}", "token": f"token-{_claims}", "owner": Owner(owner, f"{owner}-1"),
        "limit": limit, "ttl_ms": 15_000, "definitions": (WORK,),
    }  # fmt: skip
    return ClaimNext(**{**asked, **fields})
