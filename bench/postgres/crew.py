"""Workers as programs of their own, from the side of who measures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Crew:
    """So many workers that serve once they are told; `reports` is filled when they have ended."""

    def __init__(self) -> None:
        self.programs: list[asyncio.subprocess.Process] = []
        self.reports: list[dict[str, float]] = []

    def go(self) -> None:
        for program in self.programs:
            assert program.stdin is not None
            program.stdin.write(b"go\n")

    def total(self, kind: str) -> float:
        return sum(report.get(kind, 0) for report in self.reports)

    def per_commit(self, kind: str) -> float:
        """How many of that kind each commit carried that carried any."""
        return self.total(kind) / max(1.0, self.total(f"{kind}_commits"))


@asynccontextmanager
async def workers(url: str, count: int, concurrency: int) -> AsyncIterator[Crew]:
    crew = Crew()
    try:
        for number in range(count):
            crew.programs.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "bench.postgres.worker", url, str(concurrency), f"bench-{number}", cwd=ROOT,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
            )  # fmt: skip
        for program in crew.programs:
            assert program.stdout is not None
            if await program.stdout.readline() != b"ready\n":
                raise RuntimeError("a worker has ended early")
        yield crew
        for program in crew.programs:
            assert program.stdin is not None
            program.stdin.close()
            told, _ = await program.communicate()
            crew.reports.append(json.loads(told))
    finally:
        for program in crew.programs:
            if program.returncode is None:
                program.kill()
                await program.wait()
