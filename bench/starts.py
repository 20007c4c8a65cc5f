"""Starting processes: one at a time, a hundred at once, and in bulk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Plan, emit_pair, median, scratch
from bench.raw import insert_rates
from bench.subject import ORDER, Templates, make_host, take_templates, url_of
from perdure import Host, Process

AT_ONCE = 100

Starting = Callable[[Host, Process[dict[str, Any], bool], int], Awaitable[None]]


async def one_at_a_time(host: Host, noop: Process[dict[str, Any], bool], n: int) -> None:
    for _ in range(n):
        await host.start(noop, ORDER)


async def at_once(host: Host, noop: Process[dict[str, Any], bool], n: int) -> None:
    for _ in range(0, n, AT_ONCE):
        await asyncio.gather(*(host.start(noop, ORDER) for _ in range(AT_ONCE)))


async def in_bulk(host: Host, noop: Process[dict[str, Any], bool], n: int) -> None:
    await host.start_many(noop, [ORDER] * n)


def measure(plan: Plan) -> None:
    with scratch(plan) as folder:
        templates = asyncio.run(take_templates(folder))
    _measure(plan, templates, "starts.one_at_a_time", one_at_a_time, plan.part(20, 50))
    _measure(plan, templates, "starts.100_at_once", at_once, max(AT_ONCE, plan.n // AT_ONCE * AT_ONCE))
    _measure(plan, templates, "starts.start_many", in_bulk, plan.n)


def _measure(plan: Plan, templates: Templates, name: str, start: Starting, n: int) -> None:
    ours, raw, batches = [], [], []
    for _ in range(plan.reps):
        sizes: list[int] = []
        with scratch(plan) as folder:
            ours.append(asyncio.run(_rate(folder / "ours.db", start, n, sizes)))
            batches.append(sum(sizes) / len(sizes))
            raw.append(insert_rates(folder / "raw.db", templates, n, max(1, round(batches[-1]))))
    emit_pair(name, ours, raw, "starts/s", n=n, raw_name=f"raw.{name}", batch=round(median(batches), 1))


async def _rate(path: Path, start: Starting, n: int, sizes: list[int]) -> float:
    host, noop = make_host(url_of(path), work=False)
    async with host:

        def committed(receipts: Sequence[object]) -> None:
            sizes.append(len(receipts))

        host.registry.observe(committed)
        began = time.perf_counter()
        await start(host, noop, n)
        return n / (time.perf_counter() - began)
