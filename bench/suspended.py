"""Many processes that wait for a signal: what a worker's memory is with them, and how fast a signal wakes one."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Plan, Target, child, emit, median, percentile, scratch
from bench.memory import SETTLED_S, peak_mb
from perdure import Host, Process, ProcessContext, Signal, WorkerOptions
from perdure.clock import SystemClock
from perdure.hosting.urls import open_registry
from perdure.transitions.commands import AnyReceipt, Receipt

ROWS_PER_N = 10
SIGNALS = 200
AT_MOST_MORE_MB = Target("at most", 50.0)
P95_MS = Target("at most", 50.0)

go = Signal("go", int)


async def _waits(ctx: ProcessContext) -> int:
    return await ctx.wait(go)


def make_host(path: Path, **options: Any) -> tuple[Host, Process[None, int]]:
    host = Host(f"sqlite:///{path}", name="bench", parking=0, **options)
    waits: Process[None, int] = host.process(recovery="rerunnable", name="waits", signals=[go])(_waits)
    return host, waits


async def suspend(path: Path, count: int) -> None:
    """Start so many, and let each run up to its wait."""
    registry = await open_registry(f"sqlite:///{path}", SystemClock())
    host, waits = make_host(path, registry=registry, options=WorkerOptions(concurrency=256))
    left, all_wait = count, asyncio.Event()

    def committed(receipts: Sequence[AnyReceipt]) -> None:
        nonlocal left
        left -= sum(1 for one in receipts if isinstance(one, Receipt) and one.record.status == "waiting")
        if left <= 0:
            all_wait.set()

    registry.observe(committed)
    async with host:
        await host.start_many(waits, [None] * count, ids=[_id(number) for number in range(count)])
        await all_wait.wait()
    await registry.close()


def _id(number: int) -> str:
    return f"waits-{number:07}"


async def wake(path: Path, count: int, signals: int) -> dict[str, float]:
    """A worker on the file; signals to some of them, one after the other; milliseconds up to the result."""
    host, waits = make_host(path)
    took_ms = []
    async with host:
        await asyncio.sleep(SETTLED_S)
        for number in range(0, signals and count, max(1, count // max(1, signals))):
            handle = host.get_handle(_id(number), waits)
            began = time.perf_counter()
            await handle.signal(go, number)
            assert await handle.result() == number
            took_ms.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.002)
    found = {"peak_mb": peak_mb()}
    return found | ({"p50": percentile(took_ms, 50), "p95": percentile(took_ms, 95)} if took_ms else {})


def measure(plan: Plan) -> None:
    count = plan.n * ROWS_PER_N
    empty, held, halves, tails = [], [], [], []
    for _ in range(plan.reps):
        with scratch(plan) as folder:
            asyncio.run(suspend(folder / "waits.db", count))
            empty.append(child("suspended", str(folder / "empty.db"), "0", "0")["peak_mb"])
            held.append(child("suspended", str(folder / "waits.db"), str(count), "0")["peak_mb"])
            woken = child("suspended", str(folder / "waits.db"), str(count), str(SIGNALS))
            halves.append(woken["p50"])
            tails.append(woken["p95"])
    more_mb = median([mine - none for mine, none in zip(held, empty, strict=True)])
    emit("suspended.empty_file", empty, "MB peak RSS", n=0)
    emit(
        "suspended.with_rows", held, "MB peak RSS", n=count, more_mb=round(more_mb, 1),
        bound="at most 50 MB more than on an empty file", within=AT_MOST_MORE_MB.holds(more_mb),
    )  # fmt: skip
    emit("suspended.signal_to_result.p50", halves, "ms", n=SIGNALS)
    emit(
        "suspended.signal_to_result.p95", tails, "ms", n=SIGNALS, bound="at most 50 ms",
        within=P95_MS.holds(median(tails)),
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asyncio.run(wake(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
