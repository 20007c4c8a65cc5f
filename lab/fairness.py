"""The fairness lab: several saturating programs on one file. Each must get on, and every lease be renewed in time."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import Future
from pathlib import Path

import msgspec

from lab.program import ChildChannel, Program
from perdure.clock import SystemClock
from perdure.contract.moments import MomentName
from perdure.engines.python.context import ProcessContext
from perdure.host import Host
from perdure.runtime.options import WorkerOptions
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import Renew, RenewReceipt

OPTIONS = WorkerOptions()
WAITERS = 2 * OPTIONS.concurrency
LATEST_RENEWAL_MS = OPTIONS.lease_ttl_ms // 2
LEAST_SHARE = 0.2


class Share(msgspec.Struct, frozen=True):
    """What one program got: processes completed, and per round of renewal the delay from due to answered."""

    completed: int
    renewals_ms: tuple[int, ...]
    slowest_ms: float
    """The longest that one process took from its start to its result."""


class FairnessReport(msgspec.Struct, frozen=True):
    seconds: float
    completed: list[int]
    per_second: float
    least_share: float
    """The smallest program's part of an equal share: 1.0 is fair."""
    renewals: list[int]
    latest_renewal_ms: int
    slowest_ms: float
    breaches: tuple[str, ...]


class RenewalWatch:
    """Hears when renewals are answered, and knows when they were due: an interval after the one before was sent."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._due_ms: int | None = None
        self._pending: list[int] = []
        self.delays_ms: list[int] = []

    def begin(self) -> None:
        """The first round is due one interval after the worker began."""
        self._due_ms = self._clock.now().boot_ms + OPTIONS.renew_every_ms

    def sent(self) -> None:
        now_ms = self._clock.now().boot_ms
        with self._lock:
            self._pending.append(now_ms if self._due_ms is None else self._due_ms)
            self._due_ms = now_ms + OPTIONS.renew_every_ms

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if moment == "renewal.answered":
            with self._lock:
                self.delays_ms.append(self._clock.now().boot_ms - self._pending.pop(0))

    def overdue_ms(self) -> int:
        """How long the oldest round has been waiting that was due and has no answer."""
        with self._lock:
            due_ms = self._pending[0] if self._pending else self._due_ms
        return 0 if due_ms is None else max(0, self._clock.now().boot_ms - due_ms)


class WatchedRegistry(SqliteRegistry):
    """Tells a watch when a renewal is sent."""

    watch: RenewalWatch

    def renew_from_thread(self, command: Renew) -> Future[RenewReceipt]:
        self.watch.sent()
        return super().renew_from_thread(command)


def run_fairness(folder: Path, *, programs: int, seconds: float) -> FairnessReport:
    database = folder / "work.db"
    children = [Program.fork(lambda channel: asyncio.run(_saturate(channel, database))) for _ in range(programs)]
    for child in children:
        child.hear(30)
    for child in children:
        child.tell(seconds=seconds)
    shares = [msgspec.convert(child.hear(seconds + 60), Share) for child in children]
    for child in children:
        child.wait(60)
    return report_on(shares, seconds)


def report_on(shares: list[Share], seconds: float) -> FairnessReport:
    completed = [share.completed for share in shares]
    equal = sum(completed) / len(shares)
    latest_ms = max((delay for share in shares for delay in share.renewals_ms), default=0)
    breaches = [
        f"program {number} completed {share.completed}, under {LEAST_SHARE:.0%} of an equal share of {equal:.0f}"
        for number, share in enumerate(shares)
        if share.completed < LEAST_SHARE * equal
    ]
    if latest_ms > LATEST_RENEWAL_MS:
        breaches.append(f"a renewal was answered {latest_ms} ms after it was due, later than {LATEST_RENEWAL_MS} ms")
    if seconds * 1000 > 2 * OPTIONS.renew_every_ms and not all(share.renewals_ms for share in shares):
        breaches.append("a program's leases were never renewed")
    return FairnessReport(
        seconds,
        completed,
        round(sum(completed) / seconds, 1),
        round(min(completed) / equal, 3) if equal else 0.0,
        [len(share.renewals_ms) for share in shares],
        latest_ms,
        max(share.slowest_ms for share in shares),
        tuple(breaches),
    )


async def _saturate(channel: socket.socket, database: Path) -> None:
    watch = RenewalWatch()
    registry = await WatchedRegistry.open(database, moments=watch)
    assert isinstance(registry, WatchedRegistry)
    registry.watch = watch
    host = Host(f"sqlite:///{database}", options=OPTIONS, registry=registry, moments=watch)

    @host.process(recovery="rerunnable")
    async def nothing(ctx: ProcessContext) -> None:
        return

    done = asyncio.Event()

    @host.process(recovery="owner_bound", name=f"long-{os.getpid()}")  # no other program knows it
    async def long(ctx: ProcessContext) -> None:
        await done.wait()

    parent = await ChildChannel.on(channel)
    async with host:
        parent.tell(ready=True)
        order = await parent.hear()
        assert order is not None
        lasting = await host.start(long)  # there is a lease to renew in every round, and it must last
        watch.begin()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + order["seconds"]
        completed, slowest_s = 0, 0.0

        async def start_and_wait() -> None:
            nonlocal completed, slowest_s
            while loop.time() < until_s:
                began_s = loop.time()
                run = await host.start(nothing)
                await run.result()
                slowest_s = max(slowest_s, loop.time() - began_s)
                completed += loop.time() < until_s

        async with asyncio.TaskGroup() as waiters:
            for _ in range(WAITERS):
                waiters.create_task(start_and_wait())
        done.set()
        await lasting.result()
        delays_ms = (*watch.delays_ms, *([late_ms] if (late_ms := watch.overdue_ms()) else []))
        parent.tell(completed=completed, renewals_ms=delays_ms, slowest_ms=round(slowest_s * 1000, 1))
        await parent.flush()
    await registry.close()
