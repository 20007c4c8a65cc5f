"""How live output reaches its followers: in this program, and in others that share the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from perdure.model.live import Chunk

RECENT_CHUNKS, RECENT_BYTES = 256, 128 * 1024
"""What of a run is kept for a follower that comes a moment late."""

Take = Callable[[Chunk], None]
"""A follower's ear. Called in any thread; must not block."""

Recent = Callable[[], Sequence[Chunk]]
"""What a run has published lately, for a follower that has just come. Callable in any thread."""


class LiveWire(Protocol):
    """Carries chunks from those who publish to those who follow. Best effort, bounded, and never in anybody's way:
    what can't be carried is lost, and the numbers of the chunks show it. The chunks of one run come in order."""

    def send(self, chunk: Chunk, recent: Recent) -> None:
        """Carry a chunk. From any thread, at once: it never waits for a follower, a lock of another program or the
        disk. A store that learns of a new follower elsewhere may send it what is `recent` first."""
        ...

    def attend(self, process_id: str) -> Callable[[], None]:
        """Let others know, where they can be told, that somebody here follows the process: what it says elsewhere then
        comes here. Event loop only; it may wait for the disk. Returns the function that ends it."""
        ...

    def follow(self, process_id: str, take: Take) -> Callable[[], None]:
        """Have `take` called with the chunks of a process, some of them perhaps twice: with those that are said here,
        and with those that come from elsewhere, which takes attending. Event loop only, at once. Returns the function
        that ends it."""
        ...


class LiveRun(Protocol):
    """One run's output, as its engine publishes it. Every method may be called from any thread."""

    def publish(self, channel: str, payload: msgspec.Raw, step: str | None) -> None:
        """Say something; nothing once it is closed."""
        ...

    def close(self) -> None:
        """The run is over. Twice changes nothing."""
        ...


class Backlog:
    """Chunks that wait for somebody, oldest first. When there are too many, the oldest go. Not for several threads."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0
        self._chunks: deque[Chunk] = deque()

    def __len__(self) -> int:
        return len(self._chunks)

    def add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._bytes += _size(chunk)
        while len(self._chunks) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _size(self._chunks.popleft())

    def take(self, most_bytes: int | None = None) -> list[Chunk]:
        """Remove and return what waits; with a bound no more than fits into it, but one at least."""
        taken: list[Chunk] = []
        size = 0
        while self._chunks:
            size += _size(self._chunks[0])
            if taken and most_bytes is not None and size > most_bytes:
                break
            taken.append(self._chunks.popleft())
            self._bytes -= _size(taken[-1])
        return taken

    def all(self) -> list[Chunk]:
        """What waits, without removing it."""
        return list(self._chunks)

    def clear(self) -> None:
        self._chunks.clear()
        self._bytes = 0


def _size(chunk: Chunk) -> int:
    """About what it takes, in memory and on its way."""
    return memoryview(chunk.payload).nbytes + len(chunk.process_id) + len(chunk.channel) + len(chunk.step or "") + 100
