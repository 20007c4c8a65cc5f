"""The work of the PostgreSQL lab, and by arithmetic what it returns. Each step leaves a line outside the database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from lab.ledger import Ledger
from lab.postgres.lines import AnyLine, RunBegan, RunEnded, StepBegan, StepDone, boot_ms
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.signals import Signal
from perdure.host import Host

ENOUGH_DEATHS = 10_000
"""No process of this lab is given up for dying too often: every one must come to its own end."""

go = Signal("go", int)

STEPS = {
    "one": ("s0",), "several": ("s0", "s1", "s2", "s3"), "sleeper": ("s0", "s1"), "waiter": ("s0", "s1"),
    "parent": ("s0",), "child": ("s0", "s1"), "bound": ("s0", "s1", "s2"), "bound_plain": (),
}  # fmt: skip
"""The steps of each kind; every one of them is done in a process that has completed."""
OWNER_BOUND = ("bound", "bound_plain")
STARTED = ("one", "several", "sleeper", "waiter", "parent", "bound", "bound_plain")
"""The kinds that are started from outside."""
CHILDREN = 2


class Work(msgspec.Struct, frozen=True):
    n: int
    takes_ms: int


class Effect(msgspec.Struct, frozen=True):
    """What a step returns: its value, and for the checks the fence under which it was made."""

    value: int
    fence: int


def made_by(n: int, step: str) -> int:
    return n * 10 + int(step[1:])


def expected(kind: str, work: Work, signalled: int = 0) -> int:
    """What a process returns."""
    made = sum(made_by(work.n, step) for step in STEPS[kind])
    match kind:
        case "waiter":
            return made + signalled
        case "parent":
            return made + sum(expected("child", child_work(work, number)) for number in range(CHILDREN))
        case "bound_plain":
            return work.n
        case _:
            return made


def child_work(work: Work, number: int) -> Work:
    return Work(work.n + number + 1, work.takes_ms)


def define_work(host: Host, ledger: Ledger[AnyLine], incarnation: Callable[[], str]) -> dict[str, Process[Work, int]]:
    """Define every kind on this host; whatever runs here is written down as `incarnation()`."""

    def under(ctx: ProcessContext) -> dict[str, Any]:
        return {
            "process_id": ctx.process_id, "fence": ctx.fence, "incarnation": incarnation(), "pid": os.getpid(),
            "deadline_ms": ctx.local_deadline_ms, "boot_ms": boot_ms(),
        }  # fmt: skip

    @asynccontextmanager
    async def running(ctx: ProcessContext, kind: str) -> AsyncIterator[None]:
        ledger.write(RunBegan(kind=kind, **under(ctx)))
        how = "returned"
        try:
            yield
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            ledger.write(RunEnded(how=how, **under(ctx)))

    async def do(ctx: ProcessContext, work: Work, step: str) -> int:
        effect: Effect = await ctx.step(made(ctx, work, step), step, key=step)
        return effect.value

    def made(ctx: ProcessContext, work: Work, step: str) -> Callable[[str], Any]:
        async def make(step: str) -> Effect:
            ledger.write(StepBegan(step=step, **under(ctx)))
            await asyncio.sleep(work.takes_ms / 1000)
            ledger.write(StepDone(step=step, **under(ctx)))
            return Effect(made_by(work.n, step), ctx.fence)

        return make

    async def one(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "one"):
            return await do(ctx, work, "s0")

    async def several(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "several"):
            first = await do(ctx, work, "s0")
            both = await ctx.gather(*(ctx.step(made(ctx, work, step), step, key=step) for step in ("s1", "s2")))
            middle: int = sum(effect.value for effect in both)
            return first + middle + await do(ctx, work, "s3")

    async def sleeper(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "sleeper"):
            first = await do(ctx, work, "s0")
            await ctx.sleep(work.takes_ms / 100)
            return first + await do(ctx, work, "s1")

    async def waiter(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "waiter"):
            first = await do(ctx, work, "s0")
            signalled = await ctx.wait(go)
            return first + signalled + await do(ctx, work, "s1")

    async def child(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "child"):
            return await do(ctx, work, "s0") + await do(ctx, work, "s1")

    async def bound(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "bound"):
            total: int = 0
            for step in STEPS["bound"]:
                total += await do(ctx, work, step)
                await ctx.sleep(work.takes_ms / 1000, key=f"after-{step}")
            return total

    async def bound_plain(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "bound_plain"):
            await asyncio.sleep(work.takes_ms / 200)
            return work.n

    rerunnable: Callable[[Any], Process[Work, int]] = host.process(recovery="rerunnable", max_deaths=ENOUGH_DEATHS)
    owner_bound: Callable[[Any], Process[Work, int]] = host.process(recovery="owner_bound", max_deaths=ENOUGH_DEATHS)
    child_process = rerunnable(child)

    async def parent(ctx: ProcessContext, work: Work) -> int:
        async with running(ctx, "parent"):
            children = [
                await ctx.start(child_process, child_work(work, number), key=f"c{number}") for number in range(CHILDREN)
            ]
            own = await do(ctx, work, "s0")
            results: list[int] = await ctx.gather(*(started.result() for started in children))
            return own + sum(results)

    return {
        "one": rerunnable(one), "several": rerunnable(several), "sleeper": rerunnable(sleeper),
        "waiter": rerunnable(waiter), "parent": rerunnable(parent), "child": child_process,
        "bound": owner_bound(bound), "bound_plain": owner_bound(bound_plain),
    }  # fmt: skip
