"""Starting processes in bulk, beside the same rows inserted through unnest."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.measure import Target, emit_pair, median
from bench.postgres.place import Place
from bench.postgres.raw import Raw
from bench.postgres.subject import make_host, take_templates, url_of
from bench.subject import ORDER
from perdure.stores.postgres.store import PostgresRegistry

RATIO_TO_RAW = Target("at least", 0.40)


async def _start(place: Place, n: int) -> tuple[float, float]:
    """Starts per second, and how many a commit has carried."""
    sizes: list[int] = []

    def committed(receipts: Sequence[object]) -> None:
        sizes.append(len(receipts))

    async with place.schema() as schema:
        registry = await PostgresRegistry.open(url_of(place.url, schema))
        registry.observe(committed)
        host, noop, _ = make_host(place.url, work=False, registry=registry)
        async with host:
            began = time.perf_counter()
            await host.start_many(noop, [ORDER] * n)
            took_s = time.perf_counter() - began
        await registry.close()
    return n / took_s, sum(sizes) / len(sizes)


async def measure(place: Place) -> None:
    n, ours, raw, batches = place.plan.n, [], [], []
    for _ in range(place.plan.reps):
        rate, batch = await _start(place, n)
        ours.append(rate)
        batches.append(batch)
        async with place.schema() as schema, place.connection() as connection:
            templates = await take_templates(place.url, schema, connection)
            limit = await Raw.on(connection, schema)
            raw.append(await limit.inserts(templates, n, max(1, round(batch))))
    emit_pair(
        "starts.start_many", ours, raw, "starts/s", n=n, raw_name="raw.starts.start_many",
        batch=round(median(batches), 1), target=RATIO_TO_RAW,
    )  # fmt: skip
