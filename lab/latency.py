"""The latency lab: from a start in one program to its result back from a worker in another; and what idling costs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import msgspec

from lab.percentiles import percentile
from lab.program import ChildChannel, Program
from perdure.engines.python.context import ProcessContext
from perdure.host import Host

WARM_UP = 20
P95_BOUND_MS = 20.0
IDLE_BOUND_PER_S = 2.0
SHOWN_STATEMENT = 60


class LatencyReport(msgspec.Struct, frozen=True):
    rounds: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    idle_seconds: float
    idle_statements_per_s: float
    idle_statements: dict[str, int]
    breaches: tuple[str, ...]


def run_latency(folder: Path, *, rounds: int, idle_seconds: float) -> LatencyReport:
    idle = Program.fork(lambda channel: asyncio.run(_idle(channel, folder / "idle.db")))
    idle.tell(seconds=idle_seconds)
    counted = idle.hear(idle_seconds + 30)
    assert counted is not None
    idle.wait(30)

    database = folder / "work.db"
    worker = Program.fork(lambda channel: asyncio.run(_serve(channel, database)))
    worker.hear(30)
    starter = Program.fork(lambda channel: asyncio.run(_start(channel, database)))
    starter.tell(rounds=rounds)
    taken = starter.hear(120)
    assert taken is not None
    worker.tell(stop=True)
    for program in (starter, worker):
        program.wait(30)
    return report_on(taken["took_ms"], counted["statements"], idle_seconds)


def report_on(took_ms: list[float], statements: dict[str, int], idle_seconds: float) -> LatencyReport:
    p50, p95, p99 = (percentile(took_ms, percent) for percent in (50, 95, 99))
    per_s = round(sum(statements.values()) / idle_seconds, 2)
    breaches = []
    if p95 >= P95_BOUND_MS:
        breaches.append(f"95 % of results came back within {p95} ms, not within {P95_BOUND_MS} ms")
    if per_s >= IDLE_BOUND_PER_S:
        breaches.append(f"an idle host executes {per_s} statements a second, not fewer than {IDLE_BOUND_PER_S}")
    return LatencyReport(len(took_ms), p50, p95, p99, idle_seconds, per_s, statements, tuple(breaches))


def _define(host: Host) -> Any:
    @host.process(recovery="rerunnable")
    async def double(ctx: ProcessContext, number: int) -> int:
        return 2 * number

    return double


async def _serve(channel: socket.socket, database: Path) -> None:
    host = Host(f"sqlite:///{database}")
    _define(host)
    parent = await ChildChannel.on(channel)
    async with host:
        parent.tell(ready=True)
        await parent.hear()


async def _start(channel: socket.socket, database: Path) -> None:
    host = Host(f"sqlite:///{database}", work=False)
    double = _define(host)
    parent = await ChildChannel.on(channel)
    order = await parent.hear()
    assert order is not None
    loop, took_ms = asyncio.get_running_loop(), []
    async with host:
        for number in range(WARM_UP + order["rounds"]):
            began_s = loop.time()
            run = await host.start(double, number)
            assert await run.result() == 2 * number
            took_ms.append((loop.time() - began_s) * 1000)
    parent.tell(took_ms=took_ms[WARM_UP:])
    await parent.flush()


async def _idle(channel: socket.socket, database: Path) -> None:
    """Count every statement of every connection of a host that has nothing to do."""
    counter = StatementCounter()
    apsw.connection_hooks.append(counter.watch)
    host = Host(f"sqlite:///{database}")
    double = _define(host)
    parent = await ChildChannel.on(channel)
    order = await parent.hear()
    assert order is not None
    async with host:
        run = await host.start(double, 1)
        assert await run.result() == 2
        await asyncio.sleep(1.0)  # what the work has left to do is done; from here on it idles
        before = counter.counted()
        await asyncio.sleep(order["seconds"])
        statements = counter.counted() - before
    parent.tell(statements=dict(statements.most_common()))
    await parent.flush()


class StatementCounter:
    """Counts what connections execute, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executed: Counter[str] = Counter()

    def watch(self, connection: apsw.Connection) -> None:
        """Watch this connection from now on."""
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self._traced)

    def counted(self) -> Counter[str]:
        with self._lock:
            return Counter(self._executed)

    def _traced(self, event: dict[str, Any]) -> None:
        if not event["trigger"]:  # SQLite's own statements inside virtual tables come through as triggers
            with self._lock:
                self._executed[" ".join(event["sql"].split())[:SHOWN_STATEMENT]] += 1
