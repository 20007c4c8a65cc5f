"""Draining no-op processes that were registered beforehand: one worker, and two, in programs of their own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.measure import Target, emit, emit_pair, median
from bench.postgres.crew import workers
from bench.postgres.place import Place
from bench.postgres.raw import Raw
from bench.postgres.subject import make_host, take_templates, url_of
from bench.subject import ORDER
from perdure.stores.postgres.store import PostgresRegistry

CONCURRENCY = 256
RATIO_TO_RAW = Target("at least", 0.25)
CPU_OF_TWO = Target("at most", 1.20)
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Drained:
    per_s: float
    cpu_ms: float
    """Of all parts, per process: the workers and the server."""
    ends_per_commit: float


async def register(url: str, schema: str, n: int) -> None:
    registry = await PostgresRegistry.open(url_of(url, schema))
    host, noop, _ = make_host(url, work=False, registry=registry)
    async with host:
        await host.start_many(noop, [ORDER] * n)
    await registry.close()


async def drain(place: Place, n: int, count: int) -> Drained:
    async with place.schema() as schema, place.connection() as connection:
        await register(place.url, schema, n)
        left = (
            f"SELECT EXISTS (SELECT 1 FROM {schema}.processes WHERE ready_at IS NOT NULL) "
            f"OR EXISTS (SELECT 1 FROM {schema}.leases)"
        )
        async with workers(url_of(place.url, schema), count, CONCURRENCY) as crew:
            began, began_cpu = time.perf_counter(), place.cpu_s()
            crew.go()
            while await connection.fetchval(left):  # noqa: ASYNC110 - other programs do it
                await asyncio.sleep(LOOK_EVERY_S)
            took_s = time.perf_counter() - began
        cpu_s = place.cpu_s() - began_cpu + crew.total("cpu_s")
        return Drained(n / took_s, cpu_s * 1e3 / n, crew.per_commit("ends"))


async def measure(place: Place) -> None:
    plan = place.plan
    ones, twos, raw = [], [], []
    for _ in range(plan.reps):
        ones.append(await drain(place, plan.n, 1))
        async with place.schema() as schema, place.connection() as connection:
            templates = await take_templates(place.url, schema, connection)
            limit = await Raw.on(connection, schema)
            raw.append(await limit.drain(templates, plan.n, round(ones[-1].ends_per_commit)))
        twos.append(await drain(place, plan.n, 2))
    emit_pair(
        "drain.1_worker", [one.per_s for one in ones], raw, "processes/s", n=plan.n, raw_name="raw.drain",
        batch=round(median([one.ends_per_commit for one in ones]), 1), target=RATIO_TO_RAW,
        cpu_ms_per_process=round(median([one.cpu_ms for one in ones]), 3),
    )  # fmt: skip
    dearer = [two.cpu_ms / one.cpu_ms for one, two in zip(ones, twos, strict=True)]
    emit(
        "drain.2_workers", [two.per_s for two in twos], "processes/s", n=plan.n,
        cpu_ms_per_process=round(median([two.cpu_ms for two in twos]), 3), cpu_to_1_worker=round(median(dearer), 3),
        cpu_target=f"{CPU_OF_TWO.side} {CPU_OF_TWO.bound}", cpu_holds=CPU_OF_TWO.holds(median(dearer)),
    )  # fmt: skip
