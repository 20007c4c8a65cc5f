"""DBOS Transact on SQLite: workflows of ten no-op steps, fifty at a time. `python dbos_steps.py FILE WORKFLOWS`

It leaves SQLite as it comes: a rollback journal, and synchronous=FULL, so each commit is on disk, as ours is.

Stands by itself: it runs in an interpreter that has `dbos`, and imports nothing of ours. Prints {"steps_per_s": …}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from dbos import DBOS  # type: ignore[import-not-found, unused-ignore]  # not installed where our types are checked

STEPS, CONCURRENCY, WARM_UP = 10, 50, 20


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def step(number: int) -> int:
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def ten(payload: str) -> int:
    total = 0
    for number in range(STEPS):
        total += await step(number)
    return total


async def run(count: int, concurrency: int) -> float:
    async def one_after_the_other(share: int) -> None:
        for _ in range(share):
            handle = await DBOS.start_workflow_async(ten, "payload")
            assert await handle.get_result() == sum(range(STEPS))

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other(count // concurrency) for _ in range(concurrency)))
    return count // concurrency * concurrency * STEPS / (time.perf_counter() - began)


async def main(path: str, count: int) -> None:
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})
    DBOS.launch()
    await run(WARM_UP, 1)
    print(json.dumps({"steps_per_s": await run(count, CONCURRENCY)}), flush=True)
    os._exit(0)  # its threads would go on


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
