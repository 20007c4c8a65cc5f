"""What the runtime needs from outside: engines that run code, sinks for events, attaches, and run handles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.outcomes import Outcome
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition


class DeferredRow(msgspec.Struct, frozen=True):
    """A row that was due and not admitted, and why. Without an id: whatever rows may be due."""

    process_id: str | None
    reason: Literal["busy", "unknown_definition", "no_permit", "submit_failed", "refused"]
    detail: str = ""


class AdmissionReport(msgspec.Struct, frozen=True):
    """What one drive did: admission, not completion.

    `coalesced`: another drive was scanning; it was asked to scan once more. `next_due_at_ms`: when driving next can
    find new work by itself, or None.
    """

    intake: Literal["scanned", "coalesced"]
    reason: str
    admitted: tuple[str, ...] = ()
    deferred: tuple[DeferredRow, ...] = ()
    ended: tuple[str, ...] = ()
    next_due_at_ms: int | None = None


class RunHandle(Protocol):
    """One pass that admits pending rows to execution: our worker, or an engine."""

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        """Admit what is due. Returns before the admitted work ends. `reason` goes to logs and traces."""
        ...


class WorkerFault(msgspec.Struct, frozen=True):
    """Something that went wrong after a row was admitted, or beside any row: reported, never silent."""

    kind: Literal[
        "infrastructure", "lease_lost", "blocked_loop", "dispatcher", "swallowed_cancel", "decode", "undelivered",
    ]  # fmt: skip
    message: str
    process_id: str | None = None
    detail: str = ""


class EventSink(Protocol):
    """Best-effort push of every appended event, in order per process. Freshness, never truth.

    May also have `def report(fault: WorkerFault) -> None`; without it faults go to the log.
    """

    async def emit(self, event: Event) -> None: ...


class Attach(Protocol):
    """An engine's own durable wait."""

    def serves(self, record: ProcessRecord) -> bool:
        """Whether this row was admitted to the engine, so that its wait is the one to use."""
        ...

    async def await_terminal(self, process_id: str) -> Outcome:
        """Wait in the engine. Its errors are raised as they are, never replaced by polling."""
        ...


class Suspended(BaseException):
    """Raised out of an engine's coroutine once it has suspended the row: the lease is given back already.

    Not an Exception: code that catches errors lets it pass. What `finally` blocks do durably while it unwinds raises
    it again and is not done; the code resumes by replay.
    """


class Run(Protocol):
    """What an engine sees of the execution it is asked to run."""

    @property
    def record(self) -> ProcessRecord: ...

    @property
    def lease(self) -> Lease: ...

    @property
    def local_deadline_ms(self) -> int:
        """The boot time up to which the lease covers this run; it moves on with each renewal."""
        ...

    @property
    def cancel_reason(self) -> str | None:
        """Why this run was asked to stop; None while it wasn't."""
        ...

    @property
    def may_write(self) -> bool:
        """Whether what this run writes can still be taken: False once it is known to have lost its lease."""
        ...

    @property
    def asked_to_end(self) -> bool:
        """Whether it was the process that was asked to stop (a cancel request, its deadline): its code may clean up.
        False if only this run was: its lease is lost, or the worker stops and the process goes on elsewhere."""
        ...

    def on_stop(self, interrupt_now: Callable[[], bool]) -> None:
        """Have `interrupt_now` asked when the run is told to stop: False puts off the CancelledError; the engine then
        sees to it. A lost lease always interrupts."""
        ...

    def note_unheard(self) -> None:
        """The code has ended without having seen that it was asked to stop: what it gave is no answer to that. An
        engine that can't tell leaves it out."""
        ...

    def on_let_go(self, let_go: Callable[[], None]) -> None:
        """Have `let_go` called, on the event loop, if the worker lets go of this run while its code goes on: what the
        code still says is nobody's any more."""
        ...

    def begin_suspending(self) -> None:
        """The engine asks for the row's suspension: until it knows, a lease that is gone is no loss."""
        ...

    def end_suspending(self, *, suspended: bool) -> None:
        """The answer: whether the row was suspended, and with it the lease given back."""
        ...

    def begin_wait(self) -> None:
        """The code waits for something durable: its permit is given back."""
        ...

    async def end_wait(self) -> None:
        """It goes on: it takes a permit again."""
        ...

    def parked(self) -> AbstractAsyncContextManager[None]:
        """The same for a block: while it waits, the permit is given back; it is taken again before the block ends."""
        ...


class Engine(Protocol):
    """Runs the code of definitions of one kind."""

    @property
    def definitions(self) -> Collection[Definition]:
        """What this engine can run now."""
        ...

    def prepare(self, run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
        """Decode the input and make the coroutine that runs the code and returns the canonical result.

        An exception means that no user code was entered: the start is withdrawn. The coroutine raises what the code
        raises; StoreError and InfrastructureFailure mean that the work itself has not failed.
        """
        ...
