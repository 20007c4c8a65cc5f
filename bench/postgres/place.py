"""Where it is measured: one server, and a new schema for each repetition."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

from bench.measure import Plan
from lab.cluster import Cluster
from perdure.stores.postgres.connections import Connection

SETTINGS = {
    "shared_buffers": "512MB", "autovacuum_naptime": "1min", "max_wal_size": "1GB",
    "shared_preload_libraries": "pg_stat_statements",
}  # fmt: skip
"""Beside those that every cluster of the labs has (lab.cluster.SETTINGS), which these overrule. fsync and
synchronous_commit are on."""


@dataclass
class Place:
    """A server that is measured on. `pid` is its first program's, 0 where it isn't on this machine."""

    plan: Plan
    url: str
    pid: int
    environment: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def schema(self) -> AsyncIterator[str]:
        """The name of a schema that no other repetition has; dropped afterwards."""
        name = f"bench_{next(self._numbers)}"
        try:
            yield name
        finally:
            async with self.connection() as connection:
                await connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
                await connection.execute("CHECKPOINT")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    def cpu_s(self) -> float:
        """Processor time that all the server's programs have used, of those too that have ended."""
        if not self.pid:
            return 0.0
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return _cpu_s(self.pid, with_ended=True) + sum(_cpu_s(int(child), with_ended=False) for child in children)


def _cpu_s(pid: int, *, with_ended: bool) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5)
    return sum(int(ticks) for ticks in fields[11 : 15 if with_ended else 13]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(plan: Plan) -> Iterator[Place]:
    cluster = Cluster(SETTINGS)
    try:
        cluster.start()
        environment = {
            "PGHOST": "127.0.0.1", "PGPORT": str(cluster.port), "PGUSER": "postgres", "PGPASSWORD": cluster.password,
            "PGDATABASE": "postgres",
        }  # fmt: skip
        yield Place(plan, cluster.url, cluster.pid, environment)
    finally:
        cluster.remove()
