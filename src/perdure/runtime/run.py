"""One execution of one process: what it holds, why it was told to stop, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.runtime.permits import HeldPermit

StopKind = Literal["cancel_requested", "deadline", "lease_lost", "drain"]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run was told to stop. The first reason stands, but losing the lease outranks every other."""

    kind: StopKind
    reason: str
    by: str | None = None

    @property
    def told(self) -> str:
        """The reason, and who asked."""
        return self.reason if self.by is None else f"{self.reason} (asked by {self.by})"


class ActiveRun:
    """A claimed process in this worker, from its claim to the write of its end."""

    __slots__ = (
        "_permit", "deadline", "detached", "ending", "entered", "heard", "interrupt_now", "lease", "let_go",
        "local_deadline_ms", "record", "stop", "suspended", "suspending", "task",
    )  # fmt: skip

    def __init__(self, record: ProcessRecord, lease: Lease, local_deadline_ms: int, permit: HeldPermit) -> None:
        self.record, self.lease, self.local_deadline_ms = record, lease, local_deadline_ms
        self._permit = permit
        self.stop: Stop | None = None
        self.task: asyncio.Task[object] | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.entered, self.heard = False, True
        self.ending = False
        self.suspended = self.suspending = False
        self.interrupt_now: Callable[[], bool] | None = None
        self.let_go: Callable[[], None] | None = None
        self.detached = False

    @property
    def process_id(self) -> str:
        return self.record.registration.id

    @property
    def permit(self) -> HeldPermit:
        return self._permit

    @property
    def cancel_reason(self) -> str | None:
        return None if self.stop is None else self.stop.reason

    @property
    def may_write(self) -> bool:
        return not self.detached and (self.stop is None or self.stop.kind != "lease_lost")

    @property
    def asked_to_end(self) -> bool:
        if self.stop is None:
            return False
        if self.stop.kind == "drain":  # owner_bound work goes on nowhere else
            return self.record.registration.recovery == "owner_bound"
        return self.stop.kind in ("cancel_requested", "deadline")

    def note_unheard(self) -> None:
        self.heard = False

    def on_let_go(self, let_go: Callable[[], None]) -> None:
        self.let_go = let_go

    def detach(self) -> None:
        """Let go of the code, which goes on. Event loop only."""
        self.detached = True
        if self.let_go is not None:
            self.let_go()

    def begin_suspending(self) -> None:
        self.suspending = True

    def end_suspending(self, *, suspended: bool) -> None:
        self.suspending, self.suspended = False, suspended

    def on_stop(self, interrupt_now: Callable[[], bool]) -> None:
        self.interrupt_now = interrupt_now

    def begin_wait(self) -> None:
        self._permit.begin_wait()

    async def end_wait(self) -> None:
        await self._permit.end_wait()

    def parked(self) -> AbstractAsyncContextManager[None]:
        return self._permit.given_back()

    def tell(self, stop: Stop) -> bool:
        """Tell the code to stop, once; True if this was the telling. Event loop only."""
        if self.ending or self.suspended:
            return False  # its end is being written: the registry decides whether that still may be
        if self.suspending and stop.kind == "lease_lost":
            return False  # it may just have given the lease back; if not, the next write or renewal says so
        if self.stop is not None and (self.stop.kind == "lease_lost" or stop.kind != "lease_lost"):
            return False
        self.stop = stop
        put_off = (
            stop.kind in ("cancel_requested", "deadline")
            and self.interrupt_now is not None
            and not self.interrupt_now()
        )
        if self.entered and self.task is not None and not put_off:  # cancelled unentered, a task never runs at all
            self.task.cancel(stop.reason)
        return True
