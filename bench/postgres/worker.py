"""A worker of the measured host, as a program of its own: `python -m bench.postgres.worker URL CONCURRENCY NAME`.

Prints `ready` when it could serve, serves from the first line of its input on, and says at the end of its input what
it did, as a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.postgres.subject import make_host
from perdure.clock import SystemClock
from perdure.hosting.urls import open_registry
from perdure.transitions.commands import AnyReceipt, Receipt


async def serve(url: str, concurrency: int, name: str) -> None:
    registry = await open_registry(url, SystemClock())
    commits: Counter[str] = Counter()

    def committed(receipts: Sequence[AnyReceipt]) -> None:
        told = [r for r in receipts if isinstance(r, Receipt)]
        for kind, count in (
            ("ends", sum(r.record.is_terminal for r in told)),
            ("steps", sum(e.type == "step.completed" for r in told for e in r.events)),
        ):
            if count:
                commits[kind] += count
                commits[f"{kind}_commits"] += 1

    registry.observe(committed)
    host, *_ = make_host(url, work=True, registry=registry, concurrency=concurrency, name=name)
    print("ready", flush=True)
    sys.stdin.readline()
    began_cpu = time.process_time()
    async with host:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await registry.close()
    print(json.dumps({"cpu_s": time.process_time() - began_cpu, **commits}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
