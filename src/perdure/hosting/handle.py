"""A handle on one process: look at it, wait for it, follow it, ask it to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import msgspec

from perdure.engines.python.children import value_of
from perdure.engines.python.journal_view import JournalEntry, journal_of
from perdure.engines.python.signals import Signal
from perdure.errors import (
    CallerDeparted,
    NoLongerRetained,
)
from perdure.hosting.following import check_most_waiting, follow_live, follow_progress
from perdure.model.events import Event
from perdure.model.live import Chunk, check_channel
from perdure.model.outcomes import (
    ProcessAwaitOutput,
    RetainedNoLonger,
)
from perdure.model.progress import Progress
from perdure.model.queries import Explanation
from perdure.model.record import ProcessRecord, Status
from perdure.transitions.commands import Receipt, RequestAbandon, RequestCancel
from perdure.transitions.commands import Signal as SignalCommand
from perdure.values import ValueType

if TYPE_CHECKING:
    from perdure.hosting.serving import Serving

OutputT = TypeVar("OutputT")
PayloadT = TypeVar("PayloadT")

FOLLOW_PAGE = 1_000


class Handle(Generic[OutputT]):
    """One process, by its id. Cheap to make and to keep; it holds nothing open.

    No wait here has a timeout of its own: `async with asyncio.timeout(30)` bounds it and never harms the process.
    """

    def __init__(
        self, serving: Serving, process_id: str, output: ValueType[OutputT] | None, live_at: int | None = None
    ) -> None:
        self._serving, self.id, self._output, self._live_at = serving, process_id, output, live_at

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"

    async def result(self) -> OutputT:
        """The value the process returned, once it has.

        Raises ProcessFailed, ProcessCancelled or ProcessAbandoned if it ended otherwise (each carries the outcome),
        UnknownProcess, CallerDeparted, NoLongerRetained, or the store's error.
        """
        outcome = await self.outcome()
        if isinstance(outcome, RetainedNoLonger):
            raise NoLongerRetained(self.id, outcome.status, outcome.pruned_at_ms)
        return value_of(self.id, outcome, self._output)

    async def outcome(self) -> ProcessAwaitOutput:
        """How the process ended, once it has: a closed union for `match`."""
        return await self._serving.driver.await_terminal(self.id, live_at=self._live_at)

    async def status(self) -> Status:
        """Where it stands now."""
        return (await self.record()).status

    async def record(self) -> ProcessRecord:
        """Everything that is known of it now."""
        return await self._serving.registry.get(self.id)

    async def explain(self) -> Explanation:
        """Why it is not running, or who runs it."""
        return await self._serving.explain(self.id)

    async def events(self, after: int = 0, *, follow: bool = True) -> AsyncIterator[Event]:
        """Its events past the sequence `after`, in order, without loss or repeat.

        With `follow` it goes on until the process has ended and its last event was given (CallerDeparted is raised if
        no end may ever come); else until it is level.
        """
        registry, awaiter = self._serving.registry, self._serving.driver.awaiter
        while True:
            record = await registry.get(self.id)
            page = await registry.events_after(self.id, after, FOLLOW_PAGE)
            for event in page.events:
                after = event.sequence
                yield event
            if page.more:
                continue
            if not follow or (record.is_terminal and after >= record.state.last_sequence):
                return
            if record.status == "caller_departed":
                raise CallerDeparted(self.id)
            if after >= record.state.last_sequence:
                await awaiter.await_change(self.id, record)

    async def journal(self) -> tuple[JournalEntry, ...]:
        """What its code has been given so far, in order: steps, timers, waits, races, children, versions, recorded
        values and where it was cancelled. For tests and tools; reads the whole log. Empty for what keeps no journal.

        Raises UnknownProcess, NoLongerRetained, or DecodeError for an entry that this version can't read.
        """
        return journal_of([event async for event in self.events(follow=False)])

    def follow(self, *channels: str, most_waiting: int = 1_000) -> AsyncIterator[Chunk]:
        """Its live output (`ctx.publish`) on these channels, or on all, as it comes, until the process has ended.

        Best effort: what was published before this began may be missing (the latest of a run is there where it can
        be), and a follower that lets more than `most_waiting` chunks wait (1 to 100,000) loses the oldest. Each chunk
        says how many were `missed` before it. Fences never go down: when one is greater than the one before, the
        process was started or resumed anew. What is lasting is in the log. Raises InvalidOption at once, and
        UnknownProcess, CallerDeparted or the store's error while it is iterated.
        """
        for channel in channels:
            check_channel(channel)
        return follow_live(self._serving, self.id, channels, check_most_waiting(most_waiting))

    async def progress(self) -> Progress | None:
        """How far it said it had come (`ctx.progress`): what was written last, also after its end. None if nothing was.
        While it runs it may be a second old."""
        found = (await self._serving.registry.progress_of((self.id,))).get(self.id)
        if found is None:
            await self._serving.registry.get(self.id)  # raises UnknownProcess
        return found

    def follow_progress(self) -> AsyncIterator[Progress]:
        """What `progress` gives now, and then each new value, about one a second, until the process has ended. The last
        one is always among them. Raises like `follow`."""
        return follow_progress(self._serving, self.id)

    @overload
    async def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = ..., connection: None = ...
    ) -> int: ...
    @overload
    async def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = ..., connection: object
    ) -> None: ...
    async def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = None, connection: object | None = None
    ) -> int | None:
        """Send a signal; its sequence in the process's log. Once this returns it can't be lost, whether the process
        waits for it now, later, or already has what it needs. With an `id` the same signal again is the same one.

        Raises InvalidPayload if the payload is not of the signal's type, UndeclaredType if the process doesn't take
        this signal, ProcessAlreadyTerminal or UnknownProcess.

        With `connection` it is sent if and only if your own transaction commits (see Host.start), and is delivered
        soon after that: it has no sequence yet, and None is returned. What stands by now is refused now; a process that
        ends before the delivery refuses it then, which is a fault that the delivering host reports.
        """
        command = SignalCommand(
            process_id=self.id, name=signal.name, payload=msgspec.Raw(signal.type.encode(payload)), signal_id=id
        )
        if connection is not None:
            await self._serving.registry.post(command, connection)
            return None
        receipt: Receipt = await self._serving.registry.execute(command)
        return receipt.events[0].sequence

    async def cancel(self, reason: str = "cancelled", *, by: str | None = None) -> ProcessRecord:
        """Ask it to stop; idempotent by reason. Returns the record as it stands then: it may have ended at once.

        Running code sees a CancelledError at its next await (in a thread: `ctx.check_cancelled()`).
        """
        receipt: Receipt = await self._serving.registry.execute(RequestCancel(process_id=self.id, reason=reason, by=by))
        self._serving.tell_cancelled(self.id, reason, by)
        return receipt.record

    async def abandon(self, *, by: str, reason: str) -> ProcessRecord:
        """Give it up: at once if nobody holds a live lease on it, else when that lease has lapsed. The first request
        stands."""
        receipt: Receipt = await self._serving.registry.execute(
            RequestAbandon(process_id=self.id, by=by, reason=reason)
        )
        return receipt.record
