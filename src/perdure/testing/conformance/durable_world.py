"""What cases of durable execution run: a host whose processes have one body, over the registry of a kit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.model.outcomes import Completed, Failed
from perdure.testing.conformance.case import CaseFailed
from perdure.testing.conformance.kit import WORK, Kit

Body = Callable[[ProcessContext], Awaitable[Any]]

go = Signal("go", int)

PARKING_S = 0.01
"""Of the event loop's time: how long a process of these cases waits in memory."""
SOON_S = 20.0


@asynccontextmanager
async def durable(
    kit: Kit, body: Body, *, parking: float = PARKING_S, define: Callable[[Host], object] | None = None
) -> AsyncIterator[Host]:
    """A host that runs WORK with this body; when the block ends it stops without a grace."""
    host = Host("", name="w", registry=kit.registry, clock=kit.clock, ids=kit.ids, parking=parking)

    @host.process(recovery="rerunnable", name=WORK.name, version=WORK.version, signals=[go])
    async def work(ctx: ProcessContext) -> Any:
        return await body(ctx)

    if define is not None:
        define(host)
    await host.open()
    try:
        yield host
    finally:
        await host.close(grace=timedelta(0))


async def start(host: Host, id: str = "p") -> None:
    await host.start(host.find_process(WORK.name), id=id)


async def has_status(kit: Kit, status: str, id: str = "p") -> None:
    """Wait until the process stands so."""

    async def look() -> bool:
        return (await kit.get(id)).status == status

    await kit.until(look, f"{id} is {status}")


async def value_of(host: Host, id: str = "p") -> Any:
    """What the process returned; the case fails if it doesn't return soon."""
    async with asyncio.timeout(SOON_S):
        outcome = await host.get_handle(id).outcome()
    if not isinstance(outcome, Completed):
        raise CaseFailed(f"{id} should have completed, found {outcome!r}")
    return msgspec.json.decode(outcome.value)


async def error_of(host: Host, id: str = "p") -> tuple[str, str]:
    """How the process failed: type and message."""
    async with asyncio.timeout(SOON_S):
        outcome = await host.get_handle(id).outcome()
    if not isinstance(outcome, Failed):
        raise CaseFailed(f"{id} should have failed, found {outcome!r}")
    return outcome.error.type, outcome.error.message


async def keys(kit: Kit, prefix: str, id: str = "p") -> list[str]:
    """The keys of the journal's entries of these types, in order."""
    return [msgspec.json.decode(e.payload)["key"] for e in await kit.log(id) if e.type.startswith(prefix)]
