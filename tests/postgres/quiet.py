"""A server of a test's own, for what an open transaction of anybody else would disturb: vacuum, and room on pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from lab.cluster import Cluster
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.worlds import World

SCHEMA = "perdure"


class QuietWorld(World):
    def __init__(self, registry: PostgresRegistry, sql: Any, url: str) -> None:
        super().__init__(registry, sql, SCHEMA)
        self.url = url

    async def peer(self, **options: Any) -> PostgresRegistry:
        return await PostgresRegistry.open(self.url, SCHEMA, **options)


@asynccontextmanager
async def quiet_world() -> AsyncIterator[QuietWorld]:
    cluster = Cluster()
    try:
        cluster.start()
        registry = await PostgresRegistry.open(cluster.url, SCHEMA)
        sql = await asyncpg.connect(cluster.url)
        try:
            yield QuietWorld(registry, sql, cluster.url)
        finally:
            await registry.close()
            await sql.close()
    finally:
        cluster.remove()
