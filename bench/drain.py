"""Draining: one worker, no-op processes that another host has registered beforehand, until all have ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Plan, Target, emit, emit_pair, median, ratio, scratch
from bench.raw import JOB_BATCH, drain_rates, job_rates
from bench.subject import ORDER, make_host, take_templates, url_of
from perdure import WorkerOptions
from perdure.clock import SystemClock
from perdure.hosting.urls import open_registry
from perdure.transitions.commands import AnyReceipt, ClaimReceipt, Receipt

RATIO_TO_RAW = Target("at least", 0.25)
RATIO_TO_JOB = Target("at least", 0.20)
CONCURRENCIES = (WorkerOptions().concurrency, 256)


class Ends:
    """Counts the ends among what is committed, and how many each commit carries."""

    def __init__(self, n: int) -> None:
        self._left = n
        self.all_ended = asyncio.Event()
        self.commits: Counter[tuple[int, int]] = Counter()

    def committed(self, receipts: Sequence[AnyReceipt]) -> None:
        ended = sum(1 for r in receipts if isinstance(r, Receipt) and r.record.is_terminal)
        claimed = sum(len(r.claimed) for r in receipts if isinstance(r, ClaimReceipt))
        self.commits[ended, claimed] += 1
        self._left -= ended
        if self._left <= 0:
            self.all_ended.set()

    @property
    def ends_per_commit(self) -> float:
        """Of the commits that carry ends."""
        with_ends = {sizes: times for sizes, times in self.commits.items() if sizes[0]}
        return sum(ended * times for (ended, _), times in with_ends.items()) / sum(with_ends.values())


async def register(path: Path, n: int, *, delay_s: float | None = None) -> None:
    host, noop = make_host(url_of(path), work=False)
    async with host:
        await host.start_many(noop, [ORDER] * n, delay=delay_s)


@dataclass(frozen=True)
class Drained:
    """How long it took on the clock, and how much processor time all threads of the program spent on it."""

    took_s: float
    cpu_s: float
    ends: Ends


async def drain(path: Path, n: int, concurrency: int | None = None) -> Drained:
    """Open a worker on the file, and wait until all are terminal."""
    registry = await open_registry(f"sqlite:///{path}", SystemClock())
    ends = Ends(n)
    registry.observe(ends.committed)
    host, _ = make_host(url_of(path), work=True, concurrency=concurrency, registry=registry)
    began, began_cpu = time.perf_counter(), time.process_time()
    async with host:
        await ends.all_ended.wait()
        drained = Drained(time.perf_counter() - began, time.process_time() - began_cpu, ends)
    await registry.close()
    return drained


def measure(plan: Plan) -> None:
    with scratch(plan) as folder:
        templates = asyncio.run(take_templates(folder))
    jobs: list[float] = []
    for concurrency in CONCURRENCIES:
        ours, raw, beside, batches, commits, cpu_us = [], [], [], [], [], []
        for _ in range(plan.reps):
            with scratch(plan) as folder:
                asyncio.run(register(folder / "ours.db", plan.n))
                drained = asyncio.run(drain(folder / "ours.db", plan.n, concurrency))
                ours.append(plan.n / drained.took_s)
                cpu_us.append(drained.cpu_s * 1e6 / plan.n)
                batches.append(drained.ends.ends_per_commit)
                commits.append(float(drained.ends.commits.total()))
                raw.append(drain_rates(folder / "raw.db", templates, plan.n, max(1, round(batches[-1]))))
                beside.append(job_rates(folder / "job.db", plan.n))
        name = f"drain.concurrency_{concurrency}"
        to_job = ratio(ours, beside, RATIO_TO_JOB)
        emit_pair(
            name, ours, raw, "processes/s", n=plan.n, raw_name=f"raw.{name}", batch=round(median(batches), 1),
            target=RATIO_TO_RAW, commits=median(commits), cpu_us_per_process=round(median(cpu_us), 1),
            ratio_to_job=to_job["ratio"],
            target_to_job=to_job["target"], holds_to_job=to_job["holds"],
        )  # fmt: skip
        jobs += beside
    emit("raw_sqlite.claim+complete at batch 100", jobs, "jobs/s", n=plan.n, batch=JOB_BATCH)
