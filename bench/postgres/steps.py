"""Durable steps, ten no-op ones in each of fifty processes, in a worker of its own: beside the same rows in asyncpg."""

from __future__ import annotations

import asyncio
import time

from bench.measure import emit_pair, median
from bench.postgres.crew import workers
from bench.postgres.place import Place
from bench.postgres.raw import Raw
from bench.postgres.subject import STEPS, make_host, take_templates, url_of
from perdure.stores.postgres.store import PostgresRegistry

CONCURRENCY, WARM_UP = 50, 20


async def _steps(place: Place, count: int) -> tuple[float, float]:
    """Steps per second, and how many a commit has carried. Fifty callers, each of which starts a process, awaits its
    result, and starts the next."""

    async with place.schema() as schema:
        url = url_of(place.url, schema)
        registry = await PostgresRegistry.open(url)
        host, _, ten = make_host(url, work=False, registry=registry)

        async def one_after_the_other(share: int) -> None:
            for _ in range(share):
                assert await (await host.start(ten, "payload")).result() == sum(range(STEPS))

        async with workers(url, 1, CONCURRENCY) as crew, host:
            crew.go()
            await one_after_the_other(WARM_UP)
            began = time.perf_counter()
            await asyncio.gather(*(one_after_the_other(count // CONCURRENCY) for _ in range(CONCURRENCY)))
            took_s = time.perf_counter() - began
        await registry.close()
    return count // CONCURRENCY * CONCURRENCY * STEPS / took_s, crew.per_commit("steps")


async def measure(place: Place) -> None:
    count, ours, raw, batches = place.plan.part(10, CONCURRENCY), [], [], []
    for _ in range(place.plan.reps):
        rate, batch = await _steps(place, count)
        ours.append(rate)
        batches.append(batch)
        async with place.schema() as schema, place.connection() as connection:
            templates = await take_templates(place.url, schema, connection)
            limit = await Raw.on(connection, schema)
            raw.append(await limit.steps(templates, count * STEPS, max(1, round(batch))))
    emit_pair(
        "steps.concurrency_50", ours, raw, "steps/s", n=count * STEPS, raw_name="raw.steps.concurrency_50",
        batch=round(median(batches), 1),
    )  # fmt: skip
