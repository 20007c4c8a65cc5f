"""Registrations that a store has read already: they never change, so they need not be read again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from perdure.model.registration import Registration

REGISTRATION_CACHE_BYTES = 32 * 1024 * 1024
OVERHEAD_BYTES = 1_000

Key = TypeVar("Key", int, str)
Known = TypeVar("Known")


class RegistrationCache(Generic[Key, Known]):
    """By what a store looks them up by: what it wants to know. Bounded in bytes; the least recently used leave first.
    Used on one thread."""

    def __init__(self, max_bytes: int = REGISTRATION_CACHE_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._known: OrderedDict[Key, tuple[Known, int]] = OrderedDict()

    def get(self, key: Key) -> Known | None:
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        return found[0]

    def put(self, key: Key, known: Known, registration: Registration) -> None:
        """Instead of what was known by that key. What would take more than an eighth of the room is not kept."""
        size = OVERHEAD_BYTES + len(bytes(registration.input))
        before = self._known.pop(key, None)
        self._bytes -= before[1] if before is not None else 0
        if size > self._max_bytes // 8:
            return
        self._known[key] = known, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._known.popitem(last=False)
            self._bytes -= dropped
