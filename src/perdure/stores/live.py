"""Live output within one program: the part that every store has, and all that the memory store needs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from perdure.contract.live import Recent, Take
from perdure.model.live import Chunk


class LocalWire:
    """Calls the followers of this program at once, in the thread that publishes."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._takes: dict[str, tuple[Take, ...]] = {}  # exchanged whole: a sender reads it without the lock

    def send(self, chunk: Chunk, recent: Recent) -> None:
        for take in self._takes.get(chunk.process_id, ()):
            take(chunk)

    def attend(self, process_id: str) -> Callable[[], None]:
        return lambda: None  # nothing comes from elsewhere

    def follow(self, process_id: str, take: Take) -> Callable[[], None]:
        with self._changing:
            self._takes[process_id] = (*self._takes.get(process_id, ()), take)
        return lambda: self._unfollow(process_id, take)

    def _unfollow(self, process_id: str, take: Take) -> None:
        with self._changing:
            left = tuple(other for other in self._takes.get(process_id, ()) if other != take)
            if left:
                self._takes[process_id] = left
            else:
                self._takes.pop(process_id, None)

    def has_followers(self, process_id: str) -> bool:
        return process_id in self._takes
