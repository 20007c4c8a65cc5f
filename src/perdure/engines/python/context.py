"""What a process's code is given: who it is, and the few things it may do to its own log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure import canonical
from perdure.contract.ports import Run
from perdure.contract.registry import Registry
from perdure.model.events import Event
from perdure.transitions.commands import AppendEvent, LeaseRight, Receipt


class ProcessContext:
    """Handed to every process function as its first argument."""

    def __init__(self, run: Run, registry: Registry) -> None:
        self._run, self._registry = run, registry
        self._loop = asyncio.get_running_loop()

    @property
    def process_id(self) -> str:
        return self._run.record.registration.id

    @property
    def attempt(self) -> int:
        """Which start this is: 1 for the first. A name, not a limit."""
        return self._run.record.state.attempt

    @property
    def fence(self) -> int:
        """The fence of this execution. Give it to your own sinks: one that remembers the highest can refuse a stale
        owner."""
        return self._run.lease.fence

    @property
    def local_deadline_ms(self) -> int:
        """The boot time (CLOCK_BOOTTIME, in milliseconds) up to which this execution is covered by its lease. It
        moves on with each renewal."""
        return self._run.local_deadline_ms

    @property
    def cancel_reason(self) -> str | None:
        """Why this execution was asked to stop, or None."""
        return self._run.cancel_reason

    def check_cancelled(self) -> None:
        """Raise CancelledError if this execution was asked to stop: for code in threads, which nothing interrupts."""
        if self._run.cancel_reason is not None:
            raise asyncio.CancelledError(self._run.cancel_reason)

    async def emit(self, event_type: str, payload: Any = None, *, key: str | None = None) -> Event:
        """Append an event of your own type to this process's log, durably, under this execution's lease.

        With `key`, the same content again is the same event, and other content raises ReplayKeyConflict.
        """
        text = canonical.encode(msgspec.to_builtins(payload, str_keys=True, order="deterministic"))
        receipt: Receipt = await self._registry.execute(
            AppendEvent(
                process_id=self.process_id,
                type=event_type,
                payload=msgspec.Raw(text),
                replay_key=key,
                execution=LeaseRight(self._run.lease.key),
            )
        )
        return receipt.events[0]

    def emit_from_thread(self, event_type: str, payload: Any = None, *, key: str | None = None) -> Event:
        """The same for a plain `def` process, which runs in a thread."""
        return asyncio.run_coroutine_threadsafe(self.emit(event_type, payload, key=key), self._loop).result()
