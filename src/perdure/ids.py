"""Identity and chance as ports, and the one rule for process ids."""

from __future__ import annotations

import random
import re
import secrets
import threading
import time
from typing import NewType, Protocol

from perdure.errors import InvalidProcessId

ProcessId = NewType("ProcessId", str)

PROCESS_ID_RULE = "1 to 200 characters: a letter or digit, then letters, digits and any of . _ : @ + -"
_PROCESS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}")


def check_process_id(value: object) -> ProcessId:
    """Return `value` as a ProcessId, or raise InvalidProcessId with the rule (the same on every surface)."""
    if isinstance(value, str) and _PROCESS_ID.fullmatch(value):
        return ProcessId(value)
    raise InvalidProcessId(value, PROCESS_ID_RULE)


class Ids(Protocol):
    """Where new names and chance come from; every method may be called from any thread."""

    def process_id(self) -> ProcessId:
        """A new process id that sorts after the ones made before it on this machine (UUIDv7)."""
        ...

    def token(self) -> str:
        """An unguessable name: lease tokens, claim ids, operation ids, incarnations."""
        ...

    def fraction(self) -> float:
        """A random number in [0, 1), for jitter."""
        ...


class SystemIds:
    """Names and chance from the operating system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def process_id(self) -> ProcessId:
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms, self._counter = now_ms, secrets.randbits(10)
            else:
                self._counter += 1
                if self._counter > 0xFFF:  # 4,096 names in one millisecond: borrow from the next one
                    self._last_ms, self._counter = self._last_ms + 1, 0
            stamp, counter = self._last_ms, self._counter
        bits = (stamp & ((1 << 48) - 1)) << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(62)
        text = f"{bits:032x}"
        return ProcessId("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))

    def token(self) -> str:
        return secrets.token_urlsafe(16)

    def fraction(self) -> float:
        return random.random()  # noqa: S311 - spreads retries, guards nothing
