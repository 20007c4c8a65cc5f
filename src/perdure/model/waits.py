"""Why a process is parked."""

from __future__ import annotations

import msgspec


class SignalWait(msgspec.Struct, frozen=True, gc=False, tag="signal"):
    """Waits for the `ordinal`-th signal of that name (1 is the first ever accepted)."""

    name: str
    ordinal: int


class TimerWait(msgspec.Struct, frozen=True, gc=False, tag="timer"):
    """Waits for a moment, in milliseconds since the epoch."""

    due_at_ms: int


class ChildWait(msgspec.Struct, frozen=True, gc=False, tag="child"):
    """Waits for another process to end."""

    child_id: str


Wait = SignalWait | TimerWait | ChildWait
