"""Serves `talk` and `count` until its standard input ends: PATH NAME. Says on its output how far it is."""

from __future__ import annotations

import asyncio
import sys
import time

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.sync_context import SyncContext
from perdure.host import Host
from perdure.runtime.options import WorkerOptions

OPTIONS = WorkerOptions(lease_ttl_ms=3_000, renew_every_ms=1_000)


def host_that_talks(path: str, name: str, *, work: bool = True) -> Host:
    """A host that knows two processes: `talk` stops in the middle of its first attempt, `count` runs in a thread."""
    host = Host(f"sqlite:///{path}", name=name, options=OPTIONS, work=work)

    @host.process(recovery="rerunnable")
    async def talk(ctx: ProcessContext, words: int) -> str:
        async def speak() -> str:
            for number in range(words):
                ctx.publish("words", number)
                ctx.progress(number + 1, words, f"by {name}")
                await asyncio.sleep(0.001)
                if ctx.attempt == 1 and number == words // 2:
                    print("half", flush=True)
                    await asyncio.sleep(60)
            return f"spoken by {name}"

        return await ctx.step(speak)

    @host.process(recovery="rerunnable")
    def count(ctx: SyncContext, to: int) -> int:
        def say_each() -> int:
            for number in range(to):
                ctx.publish("numbers", {"number": number, "padding": "x" * 300})
                ctx.progress(number + 1, to)
                time.sleep(0.0005)
            return to

        return ctx.step(say_each)

    return host


async def main(path: str, name: str) -> None:
    async with host_that_talks(path, name):
        print("serving", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
