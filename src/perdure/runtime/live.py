"""Live output in one program: the runs that publish, and those who follow them. Freshness, never truth.

Nothing here is awaited and nothing kept: a follower that is too slow loses the oldest chunks and is told how many.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import msgspec

from perdure.contract.live import RECENT_BYTES, RECENT_CHUNKS, Backlog, LiveWire, Take
from perdure.errors import InvalidOption
from perdure.model.live import PROGRESS, RUN_OVER, Chunk
from perdure.model.registration import NULL

MOST_CHANNELS = 100
MOST_WAITING_BYTES = 8 * 1024 * 1024


class LiveHub:
    """The neighbour of the change hub: one per host, over the wire of its registry."""

    def __init__(self, wire: LiveWire) -> None:
        self._wire = wire
        self._runs: dict[str, RunOutput] = {}
        self._changing = threading.Lock()

    def open_run(self, process_id: str, attempt: int, fence: int) -> RunOutput:
        """The output of one run; close it when the run is over. Any thread."""
        run = RunOutput(self._wire, self._closed, process_id, attempt, fence)
        with self._changing:
            self._runs[process_id] = run
        return run

    def _closed(self, run: RunOutput) -> None:
        with self._changing:
            if self._runs.get(run.process_id) is run:
                del self._runs[run.process_id]

    def hint_progress(self, process_id: str, attempt: int, fence: int) -> None:
        """The progress of this process was just written."""
        self._wire.send(Chunk(process_id, PROGRESS, NULL, attempt, fence, 0), _nothing)

    @contextmanager
    def following(self, process_id: str, channels: Sequence[str], most: int) -> Iterator[Follower]:
        """A follower of these channels (of all, if none is named), for the block. Event loop only."""
        follower = Follower(channels, most)
        with ExitStack() as ends:
            ends.callback(self._wire.attend(process_id))  # may wait for the disk: before anything that code waits for
            run = self._runs.get(process_id)
            begin = partial(self._wire.follow, process_id) if run is None else run.introduce
            ends.callback(begin(follower.offer))
            yield follower


def _nothing() -> Sequence[Chunk]:
    return ()


class RunOutput:
    """What one run publishes, numbered per channel, with the latest of it at hand."""

    def __init__(
        self, wire: LiveWire, closed: Callable[[RunOutput], None], process_id: str, attempt: int, fence: int
    ) -> None:
        self.process_id, self._attempt, self._fence = process_id, attempt, fence
        self._wire, self._closed = wire, closed
        self._saying = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._recent = Backlog(RECENT_CHUNKS, RECENT_BYTES)
        self._over = False

    def publish(self, channel: str, payload: msgspec.Raw, step: str | None) -> None:
        """Any thread. Under the lock until it is handed on: its chunks reach every follower in order."""
        with self._saying:
            if self._over:
                return
            number = self._numbers.get(channel, 0) + 1
            if number == 1 and len(self._numbers) == MOST_CHANNELS:
                raise InvalidOption("channel", channel, f"at most {MOST_CHANNELS} different ones in one run")
            self._numbers[channel] = number
            chunk = Chunk(self.process_id, channel, payload, self._attempt, self._fence, number, step)
            self._recent.add(chunk)
            self._wire.send(chunk, self.recent)

    def recent(self) -> list[Chunk]:
        with self._saying:
            return self._recent.all()

    def introduce(self, take: Take) -> Callable[[], None]:
        """Begin to follow, with what was published lately first. Returns what ends it."""
        with self._saying:
            end = self._wire.follow(self.process_id, take)
            for chunk in self._recent.all():
                take(chunk)
            return end

    def close(self) -> None:
        with self._saying:
            if self._over:
                return
            self._over = True
            said = Chunk(self.process_id, RUN_OVER, NULL, self._attempt, self._fence, 0)
            self._wire.send(said, self.recent)
        self._closed(self)


class Follower:
    """What one follower has not taken yet. The chunks of a run come in order; those of a run that was superseded are
    left out."""

    def __init__(self, channels: Sequence[str], most: int) -> None:
        self._channels = frozenset(channels)
        self._waiting = Backlog(most, MOST_WAITING_BYTES)
        self._changing = threading.Lock()
        self._fence = self._over_fence = 0
        self._accepted: dict[str, int] = {}
        self._given: dict[str, int] = {}
        self._given_fence = 0
        self._loop, self._home = asyncio.get_running_loop(), threading.get_ident()
        self._rung = False
        self._bell = asyncio.Event()

    def offer(self, chunk: Chunk) -> None:
        """Take what is new here. Any thread, at once."""
        with self._changing:
            if not self._is_news(chunk):
                return
            already, self._rung = self._rung, True
        if not already:
            self.ring()

    def _is_news(self, chunk: Chunk) -> bool:
        if chunk.channel == PROGRESS:
            return PROGRESS in self._channels
        if chunk.fence < self._fence:
            return False
        if chunk.fence > self._fence:
            self._fence = chunk.fence
            self._accepted.clear()
        if chunk.channel == RUN_OVER:
            self._over_fence = chunk.fence
            return True
        if self._channels and chunk.channel not in self._channels:
            return False
        if chunk.number <= self._accepted.get(chunk.channel, 0):
            return False
        self._accepted[chunk.channel] = chunk.number
        self._waiting.add(chunk)
        return True

    def ring(self, *_: object) -> None:
        """Wake whoever waits. Any thread."""
        if threading.get_ident() == self._home:
            self._bell.set()
        else:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._bell.set)

    async def rung(self, within_s: float | None = None) -> bool:
        """Wait until something has come since this was last asked, or until `within_s` is over; whether it has."""
        try:
            async with asyncio.timeout(within_s):
                await self._bell.wait()
        except TimeoutError:
            return False
        self._bell.clear()
        with self._changing:
            self._rung = False
        return True

    async def until_run_over(self, within_s: float) -> None:
        """Wait for the rest of a run that has said something and not yet that it is over; at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._over_fence < self._fence:
                    await self.rung()

    def take(self) -> list[Chunk]:
        """What has come, each with the number of those that were lost just before it."""
        with self._changing:
            chunks = self._waiting.take()
        return [self._counted(chunk) for chunk in chunks]

    def _counted(self, chunk: Chunk) -> Chunk:
        if chunk.fence != self._given_fence:
            self._given_fence = chunk.fence
            self._given.clear()
        missed = chunk.number - self._given.get(chunk.channel, 0) - 1
        self._given[chunk.channel] = chunk.number
        return msgspec.structs.replace(chunk, missed=missed) if missed else chunk
