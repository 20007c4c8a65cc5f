"""Durable steps, ten no-op ones in each of fifty processes: beside the same rows in plain apsw, and beside a peer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Plan, Target, emit, emit_pair, median, ratio, scratch
from bench.raw import UNMOVED, insert_sql, open_raw
from bench.subject import Row, last_row
from perdure import Host, Process, ProcessContext
from perdure.clock import SystemClock
from perdure.hosting.urls import open_registry
from perdure.transitions.commands import AnyReceipt, Receipt

STEPS, CONCURRENCY, WARM_UP = 10, 50, 20
RATIO_TO_RAW = Target("at least", 0.25)
RATIO_TO_DBOS = Target("at least", 20.0)
DBOS_SCRIPT = Path(__file__).parent / "peers" / "dbos_steps.py"


async def noop(number: int) -> int:
    return number


async def _ten(ctx: ProcessContext, payload: str) -> int:
    total = 0
    for number in range(STEPS):
        total += await ctx.step(noop, number)
    return total


def make_host(path: Path, **options: Any) -> tuple[Host, Process[str, int]]:
    host = Host(f"sqlite:///{path}", name="bench", **options)
    ten: Process[str, int] = host.process(recovery="rerunnable", name="ten")(_ten)
    return host, ten


class StepCommits:
    """Counts the finished steps, and the commits that carry any."""

    def __init__(self) -> None:
        self.steps = self.commits = 0

    def committed(self, receipts: Sequence[AnyReceipt]) -> None:
        events = (event for receipt in receipts if isinstance(receipt, Receipt) for event in receipt.events)
        finished = sum(1 for event in events if event.type == "step.completed")
        self.steps += finished
        self.commits += 1 if finished else 0

    @property
    def steps_per_commit(self) -> float:
        return self.steps / self.commits


@dataclass(frozen=True)
class Stepped:
    steps_per_s: float
    cpu_us_per_step: float
    steps_per_commit: float


async def run(path: Path, count: int) -> Stepped:
    """Fifty callers, each of which starts a process, awaits its result, and starts the next."""
    registry = await open_registry(f"sqlite:///{path}", SystemClock())
    host, ten = make_host(path, registry=registry)

    async def one_after_the_other(share: int) -> None:
        for _ in range(share):
            run = await host.start(ten, "payload")
            assert await run.result() == sum(range(STEPS))

    async with host:
        await one_after_the_other(WARM_UP)
        commits = StepCommits()
        registry.observe(commits.committed)
        began, began_cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one_after_the_other(count // CONCURRENCY) for _ in range(CONCURRENCY)))
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    await registry.close()
    return Stepped(commits.steps / took_s, cpu_s * 1e6 / commits.steps, commits.steps_per_commit)


def raw_rates(path: Path, rows: tuple[Row, Row], count: int, batch: int) -> float:
    """Steps/s of the two rows that a step writes: its process's record, and its event. `batch` processes take one step
    each per commit. Ours also starts, claims and ends each process in the same time; that is not in here."""
    record, event = rows
    connection = open_raw(path)
    with connection:
        made = [
            tuple({**record, "row": row, "change": row + 1, "id": f"{record['id'][:-12]}{row:012x}"}.values())
            for row in range(batch)
        ]
        connection.executemany(insert_sql("processes", record), made)
    moved = [name for name in record if name not in UNMOVED]
    update = f"UPDATE processes SET {', '.join(f'{name} = ?' for name in moved)} WHERE row = ?"
    into_events = insert_sql("events", event)
    batches = list(_batches(record, event, count * STEPS, batch))
    began = time.perf_counter()
    for states, events in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(update, states)
        connection.executemany(into_events, events)
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began
    connection.close()
    return len(batches) * batch / took_s


def _batches(record: Row, event: Row, steps: int, batch: int) -> Iterator[tuple[list[Any], list[Any]]]:
    for number in range(1, max(1, steps // batch) + 1):
        changes = range(number * batch + 1, (number + 1) * batch + 1)
        yield (
            [
                (*(value for name, value in {**record, "change": change}.items() if name not in UNMOVED), row)
                for row, change in enumerate(changes)
            ],
            [tuple({**event, "row": row, "sequence": number, "replay_key": f"noop#{number}"}.values())
             for row in range(batch)],
        )  # fmt: skip


async def take_rows(path: Path) -> tuple[Row, Row]:
    """The row of a process that runs and has done half its steps, and the event of one, as the library writes them."""
    host = Host(f"sqlite:///{path}", name="bench")

    @host.process(recovery="rerunnable", name="ten")
    async def half(ctx: ProcessContext, payload: str) -> int:
        for number in range(STEPS // 2):
            await ctx.step(noop, number)
        await ctx.sleep(86_400)
        return 0

    async with host:
        handle = await host.start(half, "payload")
        async for event in handle.events():
            if event.type == "timer.set":
                break
        return last_row(path, "processes"), last_row(path, "events", "type = 'step.completed'")


def dbos_rates(python: Path, path: Path, count: int) -> float:
    done = subprocess.run(
        [str(python), str(DBOS_SCRIPT), str(path), str(count)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{DBOS_SCRIPT.name} failed:\n{done.stderr[-4_000:]}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer["steps_per_s"]


def measure(plan: Plan) -> None:
    ours, raw, peer, batches, cpu_us = [], [], [], [], []
    count = plan.part(10, CONCURRENCY)
    for _ in range(plan.reps):
        with scratch(plan) as folder:
            rows = asyncio.run(take_rows(folder / "rows.db"))
            stepped = asyncio.run(run(folder / "ours.db", count))
            ours.append(stepped.steps_per_s)
            batches.append(stepped.steps_per_commit)
            cpu_us.append(stepped.cpu_us_per_step)
            raw.append(raw_rates(folder / "raw.db", rows, count, max(1, round(batches[-1]))))
            if "dbos" in plan.peers:
                peer.append(dbos_rates(plan.peers["dbos"], folder / "dbos.db", max(CONCURRENCY, count // 5)))
    name = f"steps.concurrency_{CONCURRENCY}"
    beside_peer: dict[str, Any] = {}
    if peer:
        emit("dbos.steps", peer, "steps/s", n=max(CONCURRENCY, count // 5))
        to_peer = ratio(ours, peer, RATIO_TO_DBOS)
        beside_peer = {f"{key}_to_dbos": to_peer[key] for key in ("ratio", "target", "holds")}
    emit_pair(
        name, ours, raw, "steps/s", n=count * STEPS, raw_name=f"raw.{name}", batch=round(median(batches), 1),
        target=RATIO_TO_RAW, cpu_us_per_step=round(median(cpu_us), 1), **beside_peer,
    )  # fmt: skip
