"""What the Python engine needs of the host it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from perdure.clock import Clock
from perdure.contract.live import LiveRun
from perdure.contract.ports import Run
from perdure.contract.registry import Registry
from perdure.errors import InfrastructureFailure
from perdure.ids import Ids
from perdure.model.leases import LeaseKey
from perdure.model.progress import Progress
from perdure.transitions.commands import Receipt, RowCommand

PARKING_S = 2.0
"""How long a process waits in memory before it is suspended to its row."""


class Commit(Protocol):
    """Commits a command, what was noted of the process's progress, and other commands beside it, together."""

    def __call__(self, command: RowCommand, *beside: RowCommand) -> Awaitable[Receipt]: ...


@dataclass(frozen=True, slots=True)
class Support:
    """The host's own parts, as the engine uses them. `listen` and `unlisten` are the change hub's, `open_live` (process
    id, attempt, fence) is the live hub's; `note_progress` and `commit` are one progress book's. The worker that
    runs the engine must be given the same `commit`: it writes the ends, and after an end what was noted is refused."""

    registry: Registry
    clock: Clock
    ids: Ids
    listen: Callable[[str, Callable[[str], None]], None]
    unlisten: Callable[[str, Callable[[str], None]], None]
    spawn: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
    in_thread: Callable[[Callable[[], Any]], asyncio.Future[Any]]
    open_live: Callable[[str, int, int], LiveRun]
    note_progress: Callable[[LeaseKey, Progress], None]
    commit: Commit
    parking_s: float = PARKING_S

    def uncovered(self, run: Run) -> InfrastructureFailure | None:
        """None while the run's local deadline is ahead. Whoever keeps the lease says that it has passed, but a moment
        later: nothing is entered in between."""
        now_ms = self.clock.now().boot_ms
        if now_ms < run.local_deadline_ms:
            return None
        late_ms = now_ms - run.local_deadline_ms
        return InfrastructureFailure(
            f"process {run.record.id!r} goes no further here: the local deadline of its lease {run.lease.fence} passed "
            f"{late_ms} ms ago, and no renewal was answered. Check the store, and what blocks the event loop."
        )
