"""The driver: one surface over a registry, a run handle, an awaiter, a hub, and an engine's own waits."""

from __future__ import annotations

import asyncio

import msgspec

from perdure.contract.ports import AdmissionReport, Attach, EventSink, RunHandle
from perdure.contract.registry import Registry
from perdure.errors import CallerDeparted, NoLongerRetained
from perdure.model.events import Event
from perdure.model.outcomes import ProcessAwaitOutput, RetainedNoLonger
from perdure.runtime.awaiter import Awaiter
from perdure.runtime.hub import ChangeHub
from perdure.runtime.permits import giving_back_permit
from perdure.runtime.spawner import LoopSpawner, Spawner, noted
from perdure.runtime.watch import SinkPump, watch
from perdure.runtime.worker import DurableProcessWorker


class Intake:
    """Lets one drive scan at a time; a second one asks it to scan once more and goes its way."""

    def __init__(self, run_handle: RunHandle, spawner: Spawner) -> None:
        self._run_handle, self._spawner = run_handle, spawner
        self._scanning: asyncio.Task[AdmissionReport] | None = None
        self._again: str | None = None

    async def drive(self, reason: str) -> AdmissionReport:
        if self._scanning is not None and not self._scanning.done():
            self._again = reason
            return AdmissionReport("coalesced", reason)
        self._scanning = self._spawner.spawn(self._scan(reason), "perdure-drive")
        self._scanning.add_done_callback(noted)
        return await asyncio.shield(self._scanning)  # a caller that gives up doesn't take the scan with it

    async def finish(self) -> None:
        """Wait for the scan in flight, whatever comes of it."""
        if self._scanning is not None and not self._scanning.done():
            await asyncio.wait({self._scanning})

    async def _scan(self, reason: str) -> AdmissionReport:
        report: AdmissionReport | None = None
        failure: Exception | None = None
        asked: str | None = reason
        while asked is not None:
            try:
                found = await self._run_handle.claim_and_run_pending(asked)
                report = found if report is None else _joined(report, found)
            except Exception as error:  # raised below: a rescan that was promised happens all the same
                failure = failure or error
            asked, self._again = self._again, None
        if failure is not None:
            raise failure
        assert report is not None
        return report


def _joined(first: AdmissionReport, second: AdmissionReport) -> AdmissionReport:
    return msgspec.structs.replace(
        first,
        admitted=first.admitted + second.admitted,
        deferred=second.deferred,
        ended=first.ended + second.ended,
        next_due_at_ms=second.next_due_at_ms,
    )


class ProcessWorkDriver:
    """Drives the durable work queue and waits on it. The registry's non-terminal rows are the queue.

    The host calls `claim_and_run_pending(reason)` when something relevant has happened; nothing here polls.
    """

    def __init__(
        self,
        registry: Registry,
        run_handle: RunHandle,
        sink: EventSink | None = None,
        *,
        spawner: Spawner | None = None,
    ) -> None:
        self._spawner = spawner or LoopSpawner()
        hub = ChangeHub()
        self._pump = SinkPump(sink, self._spawner) if sink is not None else None
        watch(registry, hub, self._pump)
        if self._pump is not None and isinstance(run_handle, DurableProcessWorker):
            run_handle.report_to(self._pump.report)
        self._assemble(registry, hub, run_handle)

    def _assemble(self, registry: Registry, hub: ChangeHub, run_handle: RunHandle) -> None:
        self._registry, self._hub, self._run_handle = registry, hub, run_handle
        self._awaiter = Awaiter(registry, hub, self._spawner)
        self._intake = Intake(run_handle, self._spawner)
        self._attach: Attach | None = None

    @classmethod
    def from_watched(
        cls, registry: Registry, hub: ChangeHub, run_handle: RunHandle, *, spawner: Spawner | None = None
    ) -> ProcessWorkDriver:
        """A driver over a registry whose commits already reach `hub`: it is not watched a second time."""
        driver = cls.__new__(cls)
        driver._spawner = spawner or LoopSpawner()
        driver._pump = None
        driver._assemble(registry, hub, run_handle)
        return driver

    @classmethod
    def inline(
        cls, registry: Registry, worker: RunHandle, sink: EventSink | None = None, *, spawner: Spawner | None = None
    ) -> ProcessWorkDriver:
        """A driver whose rows are run by a worker in this program."""
        return cls(registry, worker, sink, spawner=spawner)

    def with_attach(self, attach: Attach) -> ProcessWorkDriver:
        """A copy that waits in an engine for the rows it serves. Shares registry, hub, intake and in-flight set."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._attach = attach
        return copy

    @property
    def process_registry(self) -> Registry:
        return self._registry

    @property
    def change_hub(self) -> ChangeHub:
        return self._hub

    @property
    def awaiter(self) -> Awaiter:
        return self._awaiter

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        """Admit what is due. Returns before the admitted work ends; see AdmissionReport."""
        return await self._intake.drive(reason)

    async def await_terminal(self, process_id: str, *, live_at: int | None = None) -> ProcessAwaitOutput:
        """The outcome of a process, as soon as it has one. Bound it with `asyncio.timeout`; that never harms it.

        `live_at` is a mark of the change hub at which the process is known to have been live: it spares the first read.

        Called from inside a process, the waiter's permit is given back meanwhile. Raises UnknownProcess,
        CallerDeparted, the store's error, or the attach's own error for a row that its engine serves.
        """
        async with giving_back_permit():
            if self._attach is None:
                return await self._awaiter.await_terminal(process_id, live_at=live_at)
            try:
                return await self._await_with(self._attach, process_id)
            except NoLongerRetained as pruned:
                return RetainedNoLonger(pruned.status, pruned.pruned_at_ms)

    async def _await_with(self, attach: Attach, process_id: str) -> ProcessAwaitOutput:
        """The engine's wait for a row it serves; for one that may still be admitted to it, first the admission."""
        record = await self._registry.get(process_id)
        while record.outcome is None and record.status != "caller_departed":
            if attach.serves(record):
                return await attach.await_terminal(process_id)
            if record.registration.recovery == "externally_owned" or record.state.started is not None:
                return await self._awaiter.await_terminal(process_id)
            record = await self._awaiter.await_change(process_id, record)
        if record.outcome is None:
            raise CallerDeparted(process_id)
        return record.outcome

    async def finish(self) -> None:
        """Wait for a drive in flight; before the registry is closed."""
        await self._intake.finish()

    async def flush(self, within_s: float) -> None:
        """Give the sink so long to take what waits for it, then stop giving it more."""
        if self._pump is not None:
            await self._pump.flush(within_s)
            self._pump.stop()

    async def await_event(self, process_id: str, event_type: str, after_sequence: int = 0) -> Event:
        """The first event of that type past the sequence, an old one at once.

        Raises ProcessFinishedWithoutEvent if the process ends without it, UnknownProcess, or the store's error.
        """
        async with giving_back_permit():
            return await self._awaiter.await_event(process_id, event_type, after_sequence)
