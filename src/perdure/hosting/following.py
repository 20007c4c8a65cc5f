"""Following a running process: its live output, and how far it says it has come. Both end when the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from perdure.errors import CallerDeparted, InvalidOption
from perdure.model.live import PROGRESS, Chunk
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord

if TYPE_CHECKING:
    from perdure.hosting.serving import Serving

MOST_WAITING = 100_000
LINGER_S = 0.25
"""How long a follower waits, after the end, for what another program published last and has not said to be all."""
LOOK_AGAIN_S = 1.0
"""Progress is read at least this often while it is followed: a hint may be lost."""


def check_most_waiting(most: int) -> int:
    """The bound; raises InvalidOption for what can't be one."""
    if not 1 <= most <= MOST_WAITING:
        raise InvalidOption("most_waiting", most, f"1 to {MOST_WAITING:,}")
    return most


async def follow_live(serving: Serving, process_id: str, channels: Sequence[str], most: int) -> AsyncIterator[Chunk]:
    """See Handle.follow."""
    awaiter = serving.driver.awaiter
    with serving.live.following(process_id, channels, most) as follower, awaiter.watching_end(process_id) as ended:
        ended.add_done_callback(follower.ring)
        record = await serving.registry.get(process_id)
        while record.is_live and not ended.done():
            for chunk in follower.take():
                yield chunk
            await follower.rung()
        await follower.until_run_over(LINGER_S)
        for chunk in follower.take():
            yield chunk
        await _check_end(serving, record, ended)


async def follow_progress(serving: Serving, process_id: str) -> AsyncIterator[Progress]:
    """See Handle.follow_progress."""
    awaiter = serving.driver.awaiter
    with serving.live.following(process_id, (PROGRESS,), 1) as follower, awaiter.watching_end(process_id) as ended:
        ended.add_done_callback(follower.ring)
        last: Progress | None = None
        record = await serving.registry.get(process_id)
        while True:
            over = ended.done() or not record.is_live  # before the read: what is read after the end is the last
            said = (await serving.registry.progress_of((process_id,))).get(process_id)
            if said is not None and said != last:
                last = said
                yield said
            if over:
                break
            await follower.rung(LOOK_AGAIN_S)
        await _check_end(serving, record, ended)


async def _check_end(serving: Serving, record: ProcessRecord, ended: asyncio.Future[ProcessRecord | None]) -> None:
    """Raise what the wait for the end has met: the store's error, a row that is gone, a caller that is."""
    if record.is_live:
        record = ended.result() or await serving.registry.get(record.id)
    if record.status == "caller_departed":
        raise CallerDeparted(record.id)
