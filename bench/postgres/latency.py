"""From start() in one program to result() there, while a worker in another one runs it, and nothing else."""

from __future__ import annotations

import asyncio
import time

from bench.measure import Target, emit, median, percentile
from bench.postgres.crew import workers
from bench.postgres.place import Place
from bench.postgres.subject import make_host, url_of
from bench.subject import ORDER

SAMPLES, WARM_UP = 300, 30
IDLE_S = 0.02
HALF, MOST = Target("at most", 3.0), Target("at most", 20.0)


async def _samples(place: Place, count: int) -> list[float]:
    async with place.schema() as schema:
        url, took_ms = url_of(place.url, schema), []
        host, noop, _ = make_host(url, work=False)
        async with workers(url, 1, 64) as crew, host:
            crew.go()
            for turn in range(count + WARM_UP):
                await asyncio.sleep(IDLE_S)
                began = time.perf_counter()
                await (await host.start(noop, ORDER)).result()
                if turn >= WARM_UP:
                    took_ms.append((time.perf_counter() - began) * 1e3)
    return took_ms


async def measure(place: Place) -> None:
    count = SAMPLES if place.plan.n >= 1_000 else 20
    runs = [await _samples(place, count) for _ in range(place.plan.reps)]
    for percent, target in ((50, HALF), (95, MOST), (99, None)):
        figures = [percentile(run, percent) for run in runs]
        bound = {} if target is None else {
            "target": f"{target.side} {target.bound} ms", "holds": target.holds(median(figures))
        }  # fmt: skip
        emit(f"latency.other_program.p{percent}", figures, "ms", n=count, **bound)
