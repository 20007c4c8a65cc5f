"""Serves `hold` under short leases until its standard input ends: PATH NAME. Says on its output what happens to it."""

from __future__ import annotations

import asyncio
import sys

from perdure.engines.python.context import ProcessContext
from perdure.errors import PerdureError
from perdure.host import Host
from perdure.runtime.options import WorkerOptions

OPTIONS = WorkerOptions(lease_ttl_ms=900, renew_every_ms=300)


def say(*words: object) -> None:
    print(*words, flush=True)


def host_with_hold(path: str, name: str, *, work: bool = True) -> Host:
    """A host that knows one process: its first attempt waits to be cancelled, every other returns at once."""
    host = Host(f"sqlite:///{path}", name=name, options=OPTIONS, work=work)

    @host.process(recovery="rerunnable")
    async def hold(ctx: ProcessContext) -> str:
        say("entered", name, ctx.attempt, ctx.fence)
        if ctx.attempt > 1:
            return f"done by {name}"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("cancelled", name, ctx.cancel_reason)
            try:
                await ctx.emit("late", name)
            except PerdureError as refused:
                say("refused", name, type(refused).__name__)
            raise
        return "never"

    return host


async def main(path: str, name: str) -> None:
    async with host_with_hold(path, name):
        say("serving", name)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    say("closed", name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
