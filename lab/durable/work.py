"""The function that the durable lab kills: steps in a row, at once, in branches; signals, timers, a race, a child."""

from __future__ import annotations

import os

import apsw
import msgspec

from lab.ledger import Ledger
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.signals import Signal
from perdure.host import Host

PROCESS_ID = "long"
SIGNALS = 2
go = Signal("go", int)


class StepDone(msgspec.Struct, frozen=True, tag="done"):
    """The body of a step has come to its end: the side effect that is counted."""

    step: str
    pid: int


class RunBegan(msgspec.Struct, frozen=True, tag="began"):
    """A program begins; these steps are in the log already."""

    pid: int
    finished: tuple[str, ...]


class Size(msgspec.Struct, frozen=True):
    """How many steps in a row, at once, in each of two branches, and in transactions of their own."""

    row: int
    together: int
    branch: int
    within: int = 2

    @property
    def steps(self) -> int:
        """With the step that wins the race, and two of the child."""
        return self.row + self.together + 2 * self.branch + 3


def expected(size: Size) -> list[int]:
    """What the function returns, by arithmetic."""
    row = sum(range(size.row))
    together = sum(range(size.together)) + 1
    branches = 2 * sum(range(size.branch)) + 1
    return [row, together, 7, branches, 30, 2, size.within]


def define_long(host: Host, ledger: Ledger[StepDone | RunBegan]) -> Process[Size, list[int]]:
    async def count(step: str, value: int) -> int:
        ledger.write(StepDone(step, os.getpid()))
        return value

    def count_in_thread(step: str, value: int) -> int:
        ledger.write(StepDone(step, os.getpid()))
        return value

    def write(connection: apsw.Connection, step: str) -> int:
        """Each time the body runs, one more row: only a transaction that is taken back leaves none."""
        connection.execute("CREATE TABLE IF NOT EXISTS written (step TEXT)")
        connection.execute("INSERT INTO written VALUES (?)", (step,))
        return 1

    @host.process(recovery="rerunnable", max_deaths=10_000)
    async def child(ctx: ProcessContext, value: int) -> int:
        first = await ctx.step(count, f"{ctx.process_id}/c1", value, key="c1")
        await ctx.sleep(0.02)
        return first + await ctx.step(count_in_thread, f"{ctx.process_id}/c2", 2 * value, key="c2")

    @host.process(recovery="rerunnable", max_deaths=10_000)
    async def long(ctx: ProcessContext, size: Size) -> list[int]:
        await ctx.uuid()
        row = 0
        for n in range(size.row):
            row += await ctx.step(count, f"{ctx.process_id}/r{n}", n, key=f"r{n}")
        gathered = await ctx.gather(
            *(ctx.step(count_in_thread, f"{ctx.process_id}/g{n}", n, key=f"g{n}") for n in range(size.together)),
            ctx.wait(go),
        )
        await ctx.sleep(0.03)
        _, won = await ctx.race(ctx.sleep(3_600, key="never"), ctx.step(count, f"{ctx.process_id}/w", 7, key="w"))
        started = await ctx.start(child, 10)

        async def left(ctx: ProcessContext) -> int:
            total = 0
            for n in range(size.branch):
                total += await ctx.step(count, f"{ctx.process_id}/left{n}", n, key=f"b{n}")
            return total

        async def right(ctx: ProcessContext) -> int:
            total = await ctx.wait(go)
            for n in range(size.branch):
                total += await ctx.step(count, f"{ctx.process_id}/right{n}", n, key=f"b{n}")
            return total

        branches = await ctx.branches(left, right)
        of_child = await started.result()
        version = await ctx.version("last", 2)
        within = 0
        for n in range(size.within):
            within += await ctx.step(write, f"t{n}", key=f"t{n}", transactional=True)
        return [row, sum(gathered), won, sum(branches), of_child, version, within]

    return long
