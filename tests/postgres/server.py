"""The one PostgreSQL server of a test run: started when the first test needs it, gone with the run, however that ends.

PERDURE_TEST_POSTGRES names another one to be used instead. If a pooler stands before that one,
PERDURE_TEST_POSTGRES_DIRECT names the way past it, for what the tests themselves do there.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[2]

_made: set[str] = set()


@cache
def server_url() -> str:
    """The URL of a database in which tests may make schemas."""
    given = os.environ.get("PERDURE_TEST_POSTGRES")
    if given:
        atexit.register(_drop_made)
    return given or _start()


def direct_url() -> str:
    """The same database, for sessions of the tests' own."""
    return os.environ.get("PERDURE_TEST_POSTGRES_DIRECT") or server_url()


def _start() -> str:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.postgres.serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT,
    )  # fmt: skip

    def end() -> None:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.close()
        program.stdout.close()
        program.wait(30)

    atexit.register(end)
    assert program.stdout is not None
    url = program.stdout.readline().strip()
    assert url, "no server could be started"
    return url


def schema_of(place: Path) -> str:
    """The name of the schema that stands for a file of that name: the same for the same, and dropped with the run."""
    name = f"t_{hashlib.sha256(str(place).encode()).hexdigest()[:20]}"
    _made.add(name)
    return name


def _drop_made() -> None:
    async def drop() -> None:
        connection = await asyncpg.connect(direct_url())
        for name in _made:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
        await connection.close()

    asyncio.run(drop())
