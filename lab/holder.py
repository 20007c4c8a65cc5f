"""The holder lab: a caller keeps a transaction open with a start and a signal to a running process, under load.

Nobody else may wait for it, and the process keeps its lease and its steps. The same load runs first with no transaction
open, and then beside one that is open as long and has only a number: what rows that died meanwhile cost, since nothing
can clear them away, any open transaction costs. What the start and the signal cost is the difference to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

from lab.cluster import Cluster
from perdure.clock import SystemClock
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.signals import Signal
from perdure.host import Host

WAITERS = 8
WARM_UP_S = 3.0
SLOWER_AT_MOST = 3.0
SLOWER_AT_LEAST_MS = 25.0
"""A p99 that is higher by less than this is no breach: machines have their moods."""
LOOK_EVERY_S = 0.25
DELIVERED_WITHIN_S = 20.0

stop = Signal("stop", str)


class Share(msgspec.Struct, frozen=True):
    """What the others got in one part of the run, and the target meanwhile."""

    completed: int
    per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    target_steps: int
    target_renewals: int


class HolderReport(msgspec.Struct, frozen=True):
    seconds: float
    without: Share
    beside_idle: Share
    """Beside a transaction that has a number and does nothing."""
    with_holder: Share
    breaches: tuple[str, ...]


@dataclass
class _Seen:
    """What is counted while a part runs."""

    took_ms: list[float] = field(default_factory=list)
    expiries: set[int] = field(default_factory=set)


def run_holder(seconds: float) -> HolderReport:
    cluster = Cluster()
    try:
        cluster.start()
        return asyncio.run(_run(cluster.url, seconds))
    finally:
        cluster.remove()


async def _run(url: str, seconds: float) -> HolderReport:
    host, peer = Host(url), Host(url)
    small, busy = _define(host)
    peer.add(small)
    async with host, peer:
        target = await host.start(busy, id="target")
        await _part([host, peer], small, target, WARM_UP_S)
        begun = (await target.record()).state
        without = await _part([host, peer], small, target, seconds)
        beside_idle = await _beside_idle(url, lambda: _part([host, peer], small, target, seconds))
        holder = await asyncpg.connect(url)
        transaction = holder.transaction()
        await transaction.start()
        held = await host.start(small, id="held", connection=holder)
        await target.signal(stop, "stopped", connection=holder)
        with_holder = await _part([host, peer], small, target, seconds)
        standing = (await target.record()).state
        await transaction.commit()
        await holder.close()
        async with asyncio.timeout(DELIVERED_WITHIN_S):
            await held.result()
            await target.result()
        ended = (await target.record()).state
    breaches = breaches_of(beside_idle, with_holder)
    if (standing.started, standing.status, ended.deaths) != (begun.started, "running", 0):
        breaches.append(
            f"the target did not keep its lease: {standing.status}, {standing.started}, {ended.deaths} deaths"
        )
    return HolderReport(seconds, without, beside_idle, with_holder, tuple(breaches))


async def _beside_idle(url: str, part: Callable[[], Awaitable[Share]]) -> Share:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        share = await part()
    for table in ("processes", "leases", "registrations", "events"):  # the next part begins as this one did
        await connection.execute(f"VACUUM perdure.{table}")
    await connection.close()
    return share


def breaches_of(beside_idle: Share, with_holder: Share) -> list[str]:
    breaches = []
    bound_ms = max(beside_idle.p99_ms * SLOWER_AT_MOST, beside_idle.p99_ms + SLOWER_AT_LEAST_MS)
    if with_holder.p99_ms > bound_ms:
        breaches.append(
            f"p99 of others was {with_holder.p99_ms} ms with the holder, {beside_idle.p99_ms} ms beside one that idles"
        )
    if not with_holder.target_steps:
        breaches.append("no step of the target was committed while the transaction was held")
    if beside_idle.target_renewals and not with_holder.target_renewals:
        breaches.append("the target's lease was not renewed while the transaction was held")
    return breaches


async def _part(hosts: list[Host], small: Process[None, str], target: Any, seconds: float) -> Share:
    """Saturating load for so long."""
    loop, seen = asyncio.get_running_loop(), _Seen()
    until_s = loop.time() + seconds
    first = (await target.record()).state.last_sequence

    async def start_and_wait(host: Host) -> None:
        while (began_s := loop.time()) < until_s:
            await (await host.start(small)).result()
            seen.took_ms.append((loop.time() - began_s) * 1000)

    async def look() -> None:
        clock = SystemClock()
        while loop.time() < until_s:
            lease = await hosts[0].registry.get_lease("target")
            if lease is not None:
                seen.expiries.add(lease.expires_at_ms)
            await clock.sleep(LOOK_EVERY_S)

    async with asyncio.TaskGroup() as group:
        for number in range(WAITERS):
            group.create_task(start_and_wait(hosts[number % len(hosts)]))
        group.create_task(look())
    steps = (await target.record()).state.last_sequence - first
    return share_of(seen.took_ms, seconds, steps, max(0, len(seen.expiries) - 1))


def share_of(took_ms: list[float], seconds: float, steps: int, renewals: int) -> Share:
    ordered = sorted(took_ms)
    p50, p99 = (round(ordered[int(len(ordered) * part)], 2) for part in (0.50, 0.99))
    return Share(
        len(ordered), round(len(ordered) / seconds, 1), p50, p99, round(ordered[-1], 2), steps, renewals
    )  # fmt: skip


def _define(host: Host) -> tuple[Process[None, str], Process[None, str]]:
    @host.process(recovery="rerunnable")
    async def small(ctx: ProcessContext) -> str:
        return "done"

    @host.process(recovery="rerunnable", signals=[stop])
    async def busy(ctx: ProcessContext) -> str:
        """Steps until it is told to stop."""
        told: list[str] = []

        async def listen(ctx: ProcessContext) -> None:
            told.append(await ctx.wait(stop))

        async def work(ctx: ProcessContext) -> None:
            number = 0
            while not told:
                number += 1
                await ctx.step(_pause, key=str(number))

        await ctx.branches(listen, work)
        return told[0]

    return small, busy


async def _pause() -> None:
    await SystemClock().sleep(0.02)
