"""The holder lab: a caller keeps a transaction open with a start and a signal to a running process, under load.

Nobody else may wait for it, and the process keeps its lease and its steps. The same load runs first with no transaction
open, and then beside one that is open as long and has only a number: what rows that died meanwhile cost, since nothing
can clear them away, any open transaction costs. What the start and the signal cost is the difference to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import asyncpg
import msgspec

from lab.cluster import Cluster
from lab.percentiles import percentile
from perdure.clock import SystemClock
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.hosting.handle import Handle

WAITERS = 8
WARM_UP_S = 3.0
SLOWER_AT_MOST = 3.0
SLOWER_AT_LEAST_MS = 25.0
"""A p99 that is higher by less than this is no breach: machines have their moods."""
LOOK_EVERY_S = 0.25
ANSWERED_WITHIN_S = 20.0
"""Whatever has no answer so long after it could have had one is waiting for the transaction that is held."""

HELD = "the transaction was held"

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
    unanswered: int = 0
    """Of the others, how many had not got what they waited for when they were given up."""


class HolderReport(msgspec.Struct, frozen=True):
    seconds: float
    without: Share
    beside_idle: Share
    """Beside a transaction that has a number and does nothing."""
    with_holder: Share
    breaches: tuple[str, ...]


def run_holder(seconds: float) -> HolderReport:
    cluster = Cluster()
    try:
        cluster.start()
        return asyncio.run(_run(cluster.url, seconds))
    finally:
        cluster.remove()


async def _run(url: str, seconds: float) -> HolderReport:
    host, peer = Host(url), Host(url)
    small, busy = define_held(host)
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
        is_delivered = await _ends([held, target])
        ended = (await target.record()).state
    breaches = breaches_of(beside_idle, with_holder)
    if not is_delivered:
        breaches.append(f"what was committed had no effect within {ANSWERED_WITHIN_S:g} s")
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


async def _ends(runs: Sequence[Handle[str]]) -> bool:
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            await asyncio.gather(*(run.result() for run in runs))
    except TimeoutError:
        return False
    return True


def breaches_of(beside_idle: Share, with_holder: Share) -> list[str]:
    breaches = [*_held_up(beside_idle, "an idle transaction was open"), *_held_up(with_holder, HELD)]
    bound_ms = max(beside_idle.p99_ms * SLOWER_AT_MOST, beside_idle.p99_ms + SLOWER_AT_LEAST_MS)
    if with_holder.p99_ms > bound_ms:
        breaches.append(
            f"p99 of others was {with_holder.p99_ms} ms with the holder, {beside_idle.p99_ms} ms beside one that idles"
        )
    if not with_holder.target_steps:
        breaches.append(f"no step of the target was committed while {HELD}")
    if beside_idle.target_renewals and not with_holder.target_renewals:
        breaches.append(f"the target's lease was not renewed while {HELD}")
    return breaches


def _held_up(share: Share, when: str) -> Iterator[str]:
    if share.unanswered:
        yield f"{share.unanswered} others had no answer within {ANSWERED_WITHIN_S:g} s while {when}"
    if not share.completed:
        yield f"nobody else completed anything while {when}"


async def _part(hosts: Sequence[Host], small: Process[None, str], target: Handle[str], seconds: float) -> Share:
    """Saturating load for so long."""
    first, expiries, is_over = (await target.record()).state.last_sequence, set[int](), asyncio.Event()

    async def start_and_wait(number: int) -> None:
        await (await hosts[number % len(hosts)].start(small)).result()

    async def look() -> None:
        while not is_over.is_set():
            lease = await hosts[0].registry.get_lease("target")
            if lease is not None:
                expiries.add(lease.expires_at_ms)
            await SystemClock().sleep(LOOK_EVERY_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        took_ms, unanswered = await saturate([partial(start_and_wait, number) for number in range(WAITERS)], seconds)
        is_over.set()
    steps = (await target.record()).state.last_sequence - first
    return share_of(took_ms, seconds, steps, max(0, len(expiries) - 1), unanswered)


async def saturate(
    asking: Sequence[Callable[[], Awaitable[object]]], seconds: float, answered_within_s: float = ANSWERED_WITHIN_S
) -> tuple[list[float], int]:
    """Each asks for so long, one time after the other. How many milliseconds each answer took, and how many were given
    up, as they had no answer so long after the end."""
    loop = asyncio.get_running_loop()
    until_s, took_ms = loop.time() + seconds, list[float]()

    async def ask_again(ask: Callable[[], Awaitable[object]]) -> int:
        while (began_s := loop.time()) < until_s:
            try:
                async with asyncio.timeout_at(until_s + answered_within_s):
                    await ask()
            except TimeoutError:
                return 1
            took_ms.append((loop.time() - began_s) * 1000)
        return 0

    return took_ms, sum(await asyncio.gather(*map(ask_again, asking)))


def share_of(took_ms: Sequence[float], seconds: float, steps: int, renewals: int, unanswered: int = 0) -> Share:
    return Share(
        len(took_ms), round(len(took_ms) / seconds, 1), percentile(took_ms, 50), percentile(took_ms, 99),
        percentile(took_ms, 100), steps, renewals, unanswered,
    )  # fmt: skip


def define_held(host: Host) -> tuple[Process[None, str], Process[None, str]]:
    """What the others run, done at once, and the process that is signalled meanwhile."""

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
