"""What a process's code may do durably, as one small protocol: on our own log, or in another engine.

The context speaks to this and to nothing else: it does not know a store. Every operation has a key that names it in
the process; asked again under the same key, it gives what it gave before, without doing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from perdure.model.events import Event
from perdure.model.outcomes import Outcome
from perdure.model.registration import Registration, RetryPolicy


class StepCall(msgspec.Struct, frozen=True, gc=False):
    """One step as it is asked for: its code as a function that makes a canonical value, and what it was called with.

    `arguments` is the canonical JSON of the arguments, or None where they have none: then a changed call under the
    same key can't be detected. `transactional` code takes the store's own connection, and commits with the journal.
    """

    key: str
    arguments: bytes | None
    code: Callable[..., Coroutine[Any, Any, bytes]]
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    transactional: bool = False


class Effects(Protocol):
    """Durable operations. Each returns only when what it gives is recorded."""

    async def run_step(self, call: StepCall) -> msgspec.Raw:
        """The step's value. Raises StepFailed once its failure is recorded, ReplayMismatch if it was recorded with
        other arguments."""
        ...

    async def sleep_until(self, key: str, due_in_ms: int) -> None:
        """Return once that time has passed since this was first asked for, however often the code was restarted."""
        ...

    async def wait_signal(self, key: str, name: str, within_ms: int | None) -> msgspec.Raw | None:
        """The payload of the next signal of that name that no other wait has taken; None if the time ran out."""
        ...

    async def start_child(self, key: str, registration: Registration) -> str:
        """Start a child process; its id. Asked again it is the same child."""
        ...

    async def await_child(self, key: str, child_id: str) -> Outcome:
        """The child's outcome, copied into this process's log."""
        ...

    async def emit(self, key: str, event_type: str, payload: msgspec.Raw) -> Event:
        """Append an event of the user's own type, once per key."""
        ...

    async def record_value(self, key: str, make: Callable[[], bytes]) -> msgspec.Raw:
        """A value that is made once and is the same ever after: a time, a name, a random number."""
        ...

    async def mark_version(self, scope: str, change_id: str, newest: int) -> int:
        """Which version of a change this process follows: the newest, unless it had passed this point before."""
        ...

    async def decide_race(self, key: str, winner: int, losers: tuple[str, ...]) -> None:
        """Record which of several operations came first, and the keys of those that did not."""
        ...

    def operation_ended(self) -> None:
        """The code goes on after one more operation."""
        ...

    def decided_race(self, key: str) -> int | None:
        """What `decide_race` has recorded under this key, if it has."""
        ...
