"""From start() to result() on an idle host, beside one durable commit of plain SQLite."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.measure import Plan, emit, median, percentile, ratio, scratch
from bench.raw import OneCommit
from bench.subject import ORDER, make_host, url_of

SAMPLES = 200
IDLE_S = 0.005
COMMITS, CONSTANT_MS = 3, 1.0
"""The bound of the median: so many raw commits, and this."""


async def samples(folder: Path, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of ours and of the raw commit, in turns; the host is idle before each."""
    ours, raw = [], []
    commit = OneCommit(folder / "raw.db")
    host, noop = make_host(url_of(folder / "ours.db"), work=True)
    async with host:
        for turn in range(count + 20):
            await asyncio.sleep(IDLE_S)
            began = time.perf_counter()
            run = await host.start(noop, ORDER)
            await run.result()
            took_s = time.perf_counter() - began
            await asyncio.sleep(IDLE_S)
            commit_s = commit.seconds()
            if turn >= 20:  # the first ones meet cold caches
                ours.append(took_s * 1e3)
                raw.append(commit_s * 1e3)
    commit.close()
    return ours, raw


def measure(plan: Plan) -> None:
    count = SAMPLES if plan.n >= 1_000 else 20
    runs = []
    for _ in range(plan.reps):
        with scratch(plan) as folder:
            runs.append(asyncio.run(samples(folder, count)))
    commits = [percentile(raw, 50) for _, raw in runs]
    halves = [percentile(ours, 50) for ours, _ in runs]
    bounds = [COMMITS * commit + CONSTANT_MS for commit in commits]
    emit("raw.one_commit.p50", commits, "ms", n=count)
    emit(
        "latency.start_to_result.p50", halves, "ms", n=count, **ratio(halves, commits),
        bound_ms=round(median(bounds), 3), target=f"p50 < {COMMITS} raw commits + {CONSTANT_MS:g} ms",
        holds=median([half / bound for half, bound in zip(halves, bounds, strict=True)]) < 1,
    )  # fmt: skip
    for percent in (95, 99):
        emit(f"latency.start_to_result.p{percent}", [percentile(ours, percent) for ours, _ in runs], "ms", n=count)
