"""The figures of the PostgreSQL store, by section, and of peers on the same server in the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.measure import Plan
from bench.postgres import claims, drain, idle, latency, peers, starts, steps
from bench.postgres.place import Place, server

SECTIONS: dict[str, Callable[[Place], Awaitable[None]]] = {
    "starts": starts.measure,
    "drain": drain.measure,
    "steps": steps.measure,
    "latency": latency.measure,
    "idle": idle.measure,
    "claim": claims.measure,
}


def measure(plan: Plan, sections: list[str]) -> None:
    with server(plan) as place:
        asyncio.run(_measure(place, sections))


async def _measure(place: Place, sections: list[str]) -> None:
    for section in sections:
        await SECTIONS[section](place)
    for name, command in place.plan.commands.items():
        await peers.measure(place, name, command)
