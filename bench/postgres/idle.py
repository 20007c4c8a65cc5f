"""What a worker asks of the server while there is nothing to do."""

from __future__ import annotations

import asyncio

from bench.measure import Target, emit, median
from bench.postgres.crew import workers
from bench.postgres.place import Place
from bench.postgres.subject import url_of

SETTLE_S, WATCHED_S = 5.0, 60.0
QUERIES = Target("at most", 1.0)


async def _queries_per_s(place: Place, settle_s: float, watched_s: float) -> float:
    """By the server's own count of calls, without transaction commands."""
    async with place.schema() as schema, place.connection() as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        asked = (
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements "
            "WHERE toplevel AND query NOT LIKE '%pg_stat_statements%'"
        )
        async with workers(url_of(place.url, schema), 1, 64) as crew:
            crew.go()
            await asyncio.sleep(settle_s)
            before = await connection.fetchval(asked)
            await asyncio.sleep(watched_s)
            return float(await connection.fetchval(asked) - before) / watched_s


async def measure(place: Place) -> None:
    settle_s, watched_s = (SETTLE_S, WATCHED_S) if place.plan.n >= 1_000 else (1.0, 5.0)
    rates = [await _queries_per_s(place, settle_s, watched_s) for _ in range(place.plan.reps)]
    emit(
        "idle.queries_per_s", rates, "queries/s", n=1, target=f"{QUERIES.side} {QUERIES.bound}",
        holds=QUERIES.holds(median(rates)),
    )  # fmt: skip
