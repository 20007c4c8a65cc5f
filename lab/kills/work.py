"""The work that the kill lab's workers do: short and long, in tasks and in threads, of both recoveries."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from lab.kills.ledgers import Entry
from lab.ledger import Ledger
from perdure.clock import SystemClock
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process, Retry
from perdure.host import Host

RERUNNABLE = ("quick", "blocking", "telling", "flaky")
OWNER_BOUND = ("bound", "bound_blocking")
KINDS = (*RERUNNABLE, *OWNER_BOUND)

ENOUGH_DEATHS = 10_000
"""No process of this lab is given up for dying too often: every one must come to its own end."""


class Work(msgspec.Struct, frozen=True):
    takes_ms: int


def define_work(host: Host, entries: Ledger[Entry], incarnation: Callable[[], str]) -> dict[str, Process[Work, Any]]:
    """Define every kind of work on this host; each notes its entry first."""
    clock = SystemClock()

    def enter(ctx: ProcessContext, kind: str) -> None:
        deadline_ms = ctx.local_deadline_ms
        now_ms, me = clock.now().boot_ms, os.getpid()
        entries.write(Entry(ctx.process_id, kind, ctx.attempt, ctx.fence, incarnation(), me, now_ms, deadline_ms))

    async def quick(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "quick")
        await asyncio.sleep(work.takes_ms / 1000)
        return work.takes_ms

    def blocking(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "blocking")
        time.sleep(work.takes_ms / 1000)
        return work.takes_ms

    async def telling(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "telling")
        await ctx.emit("half", {"of": work.takes_ms})
        await asyncio.sleep(work.takes_ms / 1000)
        return work.takes_ms

    async def flaky(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "flaky")
        await asyncio.sleep(work.takes_ms / 1000)
        if ctx.attempt == 1:
            raise RuntimeError("the first attempt fails")
        return work.takes_ms

    async def bound(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "bound")
        await asyncio.sleep(work.takes_ms / 1000)
        return work.takes_ms

    def bound_blocking(ctx: ProcessContext, work: Work) -> int:
        enter(ctx, "bound_blocking")
        time.sleep(work.takes_ms / 1000)
        return work.takes_ms

    retry = Retry(max_attempts=3, initial=timedelta(milliseconds=5))
    rerunnable: Callable[[Any], Process[Work, Any]] = host.process(recovery="rerunnable", max_deaths=ENOUGH_DEATHS)
    retried: Callable[[Any], Process[Work, Any]] = host.process(
        recovery="rerunnable", max_deaths=ENOUGH_DEATHS, retry=retry
    )
    owner_bound: Callable[[Any], Process[Work, Any]] = host.process(recovery="owner_bound", max_deaths=ENOUGH_DEATHS)
    return {
        "quick": rerunnable(quick),
        "blocking": rerunnable(blocking),
        "telling": rerunnable(telling),
        "flaky": retried(flaky),
        "bound": owner_bound(bound),
        "bound_blocking": owner_bound(bound_blocking),
    }
