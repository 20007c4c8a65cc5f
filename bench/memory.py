"""Peak memory of a program whose file holds many pending rows: opened with nothing to run, and while it drains."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from bench.drain import drain, register
from bench.measure import Plan, child, emit, scratch
from bench.subject import make_host, url_of

ROWS_PER_N = 10
FAR_S = 30 * 86_400.0
SETTLED_S = 1.5
"""Long enough for a worker to have looked for work, and for its safety interval to have passed."""


def peak_mb() -> float:
    """The highest resident size of this program so far.

    By VmHWM, which begins anew with a program; Linux's ru_maxrss is handed down by the parent.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024  # macOS, in bytes
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


async def _idle(path: Path) -> None:
    host, _ = make_host(url_of(path), work=True)
    async with host:
        await asyncio.sleep(SETTLED_S)


def main(what: str, path: str, n: str) -> None:
    if what == "idle":
        asyncio.run(_idle(Path(path)))
    else:
        asyncio.run(drain(Path(path), int(n)))
    print(json.dumps({"peak_mb": peak_mb()}))


def measure(plan: Plan) -> None:
    rows = plan.n * ROWS_PER_N
    empty, idle, draining = [], [], []
    for _ in range(plan.reps):
        with scratch(plan) as folder:
            asyncio.run(register(folder / "idle.db", rows, delay_s=FAR_S))
            asyncio.run(register(folder / "due.db", rows))
            empty.append(child("memory", "idle", str(folder / "empty.db"), "0")["peak_mb"])
            idle.append(child("memory", "idle", str(folder / "idle.db"), "0")["peak_mb"])
            draining.append(child("memory", "drain", str(folder / "due.db"), str(rows))["peak_mb"])
    emit("memory.empty_file", empty, "MB peak RSS", n=0)
    emit("memory.nothing_runnable", idle, "MB peak RSS", n=rows)
    emit("memory.while_draining", draining, "MB peak RSS", n=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
