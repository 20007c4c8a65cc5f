"""Peers, on the same server in the same run: each by a command that prints figures of its own as JSON, a line each.

The server is told to the command in PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE, the amount of work in BENCH_N
and BENCH_REPS. Each line that is an object with `name`, `median` and `unit` is a figure; other lines are passed over.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from bench.measure import print_figure
from bench.postgres.place import Place


async def measure(place: Place, name: str, command: str) -> None:
    environment = {
        **os.environ, **place.environment, "BENCH_N": str(place.plan.n), "BENCH_REPS": str(place.plan.reps)
    }  # fmt: skip
    program = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert program.stdout is not None
    async for line in program.stdout:
        figure = _figure(line)
        if figure is not None:
            print_figure({**figure, "name": f"{name}.{figure['name']}"})
    if await program.wait():
        print(f"{name} has ended with exit code {program.returncode}", file=sys.stderr)


def _figure(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and {"name", "median", "unit"} <= told.keys() else None
