"""Writing the journal of one execution, and telling its code, between operations, of what ends it.

1. What an operation gives is committed before the code sees it; once the commit was asked for, the code gets what it
   says, also when it is interrupted meanwhile.
2. A cancellation reaches each strand once, at an operation or between two, and the journal says where: a replay takes
   the same way. Until a strand is past what the journal knows, it is put off.
3. A run that is suspended, has lost its lease or its store, or is stopped to go on elsewhere does nothing durable any
   more, whatever its code makes of the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, cast

import msgspec

from perdure.contract.ports import Run, Suspended
from perdure.contract.registry import TransactionWork
from perdure.engines.python.journal import AnyEntry, CancelDelivered, Journal, written_key
from perdure.engines.python.parking import ParkingLot
from perdure.engines.python.strands import Strand, current_strand
from perdure.engines.python.support import Support
from perdure.errors import InfrastructureFailure, LeaseSuperseded, PerdureError, StoreError
from perdure.transitions.commands import AppendEvent, LeaseRight, Receipt, RowCommand


class SteadyWait(asyncio.Future[None]):
    """Done when `asked` is, whatever came of it. The first cancellation of the task that awaits this doesn't end the
    wait: it is raised at its end. The second one does."""

    def __init__(self, asked: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._told = False
        asked.add_done_callback(self._over)

    def _over(self, asked: asyncio.Future[Any]) -> None:
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: Any | None = None) -> bool:
        if self._told:
            return super().cancel(msg)
        self._told = True
        return False  # its task is told when it goes on


class NewOperation:
    """A block of one strand, see Recorder.operation."""

    __slots__ = ("_key", "_recorder", "_strand")

    def __init__(self, recorder: Recorder, key: str) -> None:
        self._recorder, self._key, self._strand = recorder, key, recorder.strand

    async def __aenter__(self) -> None:
        recorder, strand = self._recorder, self._strand
        if recorder.goes_on(strand):
            recorder.check_open()
        else:
            await recorder.deliver(strand, self._key)
        strand.operation = self._key

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._recorder.record_cancel(self._key)
            else:
                self._recorder.note(error)
        finally:
            self._strand.operation = None


class Recorder:
    """`task` runs the code, or waits for the thread that does."""

    lot: ParkingLot

    def __init__(
        self, run: Run, journal: Journal, support: Support, main: Strand, task: asyncio.Task[Any], is_async: bool
    ) -> None:
        self._run, self._journal, self._support = run, journal, support
        self._registry = support.registry
        self._main, self._task, self._is_async = main, task, is_async
        self._loop = asyncio.get_running_loop()
        self.broken: PerdureError | None = None
        self._code_has_ended = False

    @property
    def process_id(self) -> str:
        return self._run.record.registration.id

    @property
    def strand(self) -> Strand:
        return current_strand(self._main)

    @property
    def is_being_cancelled(self) -> bool:
        return self._run.asked_to_end

    # --- being told to stop -----------------------------------------------------------------------------------

    def begin(self, *, told: bool) -> None:
        """`told`: the code was interrupted already, before it did anything durable."""
        if told and self._run.asked_to_end:
            self._mark_interrupted(self._main)
        self._run.on_stop(self._interrupts_now)
        self._journal.on_live = self._interrupt_soon
        if not self._journal.replaying:
            self._interrupt_soon()
        self._interrupt_where_it_was(self._main, self._task)

    def end_code(self) -> None:
        """The code has returned or raised: from now on nothing interrupts its task, which writes its end next."""
        self._code_has_ended = True

    def _interrupts_now(self) -> bool:
        """Whether the code is interrupted at once: not where a replay is to tell it, and not twice."""
        if self._main.cancelled or not self.may_interrupt(self._main):
            return False
        self._mark_interrupted(self._main)
        return True

    def may_interrupt(self, strand: Strand) -> bool:
        """Whether a strand is past what the journal knows of it."""
        return strand.begun and (strand.live or not self._journal.replaying)

    def _mark_interrupted(self, strand: Strand) -> None:
        """An interruption between operations is recorded by the next one; one inside an operation is by that. A thread
        is not interrupted between operations."""
        if self._is_async and strand.operation is None and not strand.cancelled:
            strand.cancelled, strand.interrupted_after = True, strand.passed

    def interrupt(self, strand: Strand, task: asyncio.Task[Any]) -> None:
        """Interrupt a branch for the process's cancellation, unless that has reached it or a replay is to tell it."""
        if not strand.cancelled and self.may_interrupt(strand) and not self._code_has_ended:
            self._mark_interrupted(strand)
            task.cancel(self._run.cancel_reason)

    def _interrupt_soon(self) -> None:
        """What was put off is made up for, unless it is delivered before."""
        if self._run.asked_to_end:
            self._loop.call_soon_threadsafe(self._interrupt_main)

    def _interrupt_main(self) -> None:
        if not self._task.done() and self._run.asked_to_end:
            self.interrupt(self._main, self._task)

    def _interrupt_where_it_was(self, strand: Strand, task: asyncio.Task[Any] | None) -> None:
        if strand.cancelled or task is None or not self._is_async:
            return
        if self._journal.find(CancelDelivered, strand.place(strand.passed)) is not None:
            strand.cancelled = True
            task.cancel(self._run.cancel_reason)

    def operation_ended(self) -> None:
        """The code goes on after one more operation; if it was interrupted here before, so it is again."""
        strand = self.strand
        strand.passed += 1
        if self._journal.replaying:
            self._interrupt_where_it_was(strand, asyncio.current_task())

    def told_here(self) -> bool:
        """Whether code that asks by itself, between operations, is to be told that it is cancelled."""
        strand = self.strand
        if strand.step is not None or strand.cancelled or not self._run.asked_to_end:
            return self._run.cancel_reason is not None
        if self._journal.find(CancelDelivered, strand.place(strand.passed)) is not None:
            strand.cancelled = True
            return True
        if not self.may_interrupt(strand):
            return False
        strand.cancelled, strand.interrupted_after = True, strand.passed
        return True

    # --- operations -------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise what has ended this run for good."""
        if self.lot.suspended:
            raise Suspended
        if self.broken is not None:
            raise self.broken
        if not self._run.may_write:
            fence = self._run.lease.fence
            raise LeaseSuperseded(self.process_id, fence, fence, None)
        if uncovered := self._support.uncovered(self._run):
            self.note(uncovered)
            raise uncovered
        if self._run.cancel_reason is not None and not self._run.asked_to_end:
            raise asyncio.CancelledError(self._run.cancel_reason)

    def operation(self, key: str) -> NewOperation:
        """A block that does something new: where the cancellation reaches the code, and its failures are noted."""
        return NewOperation(self, key)

    def note(self, error: BaseException | None) -> None:
        """An error that ends this run for good, whatever its code makes of it."""
        if isinstance(error, StoreError | InfrastructureFailure | LeaseSuperseded):
            self.broken = self.broken or error

    def goes_on(self, strand: Strand) -> bool:
        """Whether nothing can be delivered to a strand at its next operation: it is past the journal, uninterrupted."""
        return (
            strand.live and strand.interrupted_after is None and not (self._journal.replaying or self._run.asked_to_end)
        )

    async def deliver(self, strand: Strand, key: str) -> None:
        """Before something new: raise what has ended this run, or the cancellation if it is to be told here."""
        self.check_open()
        if self._journal.find(CancelDelivered, key) is not None:
            strand.cancelled = True
            raise asyncio.CancelledError(self._run.cancel_reason)
        strand.go_live()
        if strand.interrupted_after is not None:
            place, strand.interrupted_after = strand.place(strand.interrupted_after), None
            await self.append(CancelDelivered(place))
        if self._run.asked_to_end and not strand.cancelled:
            await self.record_cancel(key)
            raise asyncio.CancelledError(self._run.cancel_reason)

    async def record_cancel(self, key: str) -> None:
        """Fix at which operation the request reached this strand. Of other interruptions nothing is recorded."""
        strand = self.strand
        if self._run.asked_to_end and not strand.cancelled and not self.lot.suspended:
            strand.cancelled = True
            if self._journal.find(CancelDelivered, key) is None:
                await self.append(CancelDelivered(key))

    def was_cancelled_at(self, key: str) -> bool:
        """Whether the journal says that several operations at once were interrupted here."""
        return self._journal.find(CancelDelivered, key) is not None

    # --- commits ----------------------------------------------------------------------------------------------

    async def append(self, entry: AnyEntry, *beside: RowCommand) -> None:
        """Commit an entry, and what must be committed with it; only then is it in the journal."""
        await self.commit((self.entry_command(entry), *beside), lambda: self._journal.add(entry))

    def entry_command(self, entry: AnyEntry) -> AppendEvent:
        return self.append_command(entry.TYPE, msgspec.Raw(msgspec.json.encode(entry)), written_key(entry))

    def append_command(self, event_type: str, payload: msgspec.Raw, key: str) -> AppendEvent:
        return AppendEvent(
            process_id=self.process_id, type=event_type, payload=payload, replay_key=key,
            execution=LeaseRight(self._run.lease.key),
        )  # fmt: skip

    async def commit(self, commands: Iterable[RowCommand], committed: Callable[[], None]) -> list[Receipt]:
        """Commit commands in one transaction; `committed` is called before the code can see anything of it."""
        answers = await self._known(lambda: self._registry.execute_together(tuple(commands)), committed)
        return cast("list[Receipt]", answers)

    async def commit_within(self, work: TransactionWork, committed: Callable[[], None]) -> None:
        """The same for the command that the user's code makes in a transaction of the store."""

        async def ask() -> Sequence[Receipt]:
            return (await self._registry.execute_within(work),)

        await self._known(ask, committed)

    async def _known(
        self, ask: Callable[[], Awaitable[Sequence[object]]], committed: Callable[[], None]
    ) -> Sequence[object]:
        """Rule 1: an interruption that comes while it is under way is raised at the next operation instead, if it is
        the process's cancellation; else once it is known what was committed."""
        interrupted: asyncio.CancelledError | None = None
        try:
            asked: Any = ask()
            if not isinstance(asked, asyncio.Future):
                asked = self._support.spawn(asked, "perdure-journal")
            if not asked.done():
                try:
                    await SteadyWait(asked, self._loop)
                except asyncio.CancelledError as error:
                    if not asked.done():
                        raise  # told twice: the bound for ending has passed
                    interrupted = error
            answers: Sequence[object] = asked.result()
            for answer in answers:
                if isinstance(answer, PerdureError):
                    raise answer
        except (StoreError, LeaseSuperseded) as error:
            self.broken = self.broken or error
            raise
        committed()
        if interrupted is not None:
            task = asyncio.current_task()
            if not self._run.asked_to_end or self.strand.cancelled or task is None:
                raise interrupted
            task.uncancel()
            if self._is_async:
                self._loop.call_soon(self._again, self.strand, task)
        return answers

    def _again(self, strand: Strand, task: asyncio.Task[Any]) -> None:
        if not task.done():
            self.interrupt(strand, task)
