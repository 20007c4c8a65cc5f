"""Wires in one folder, each as if it were a program's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from perdure.clock import SystemClock
from perdure.contract.live import Take
from perdure.contract.verbs import as_raw
from perdure.model.live import Chunk
from perdure.stores.sqlite.live import SqliteLiveWire

LONGEST_WAIT_S = 20.0


def chunk(number: int, process_id: str = "p", text: str = "") -> Chunk:
    return Chunk(process_id, "tokens", as_raw(text or number), 1, 1, number, "step")


def nothing() -> tuple[Chunk, ...]:
    return ()


def follow(wire: SqliteLiveWire, process_id: str, take: Take) -> Callable[[], None]:
    """Attend to a process and follow it, until the function that is returned is called."""
    end_attending, end_following = wire.attend(process_id), wire.follow(process_id, take)

    def end() -> None:
        end_following()
        end_attending()

    return end


@asynccontextmanager
async def wire_in(folder: Path, program: str) -> AsyncIterator[SqliteLiveWire]:
    wire = SqliteLiveWire(folder, program, asyncio.get_running_loop(), SystemClock())
    try:
        yield wire
    finally:
        wire.close()
        await asyncio.wrap_future(wire.stop())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not holds():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.001)
