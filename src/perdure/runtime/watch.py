"""The watch layer: what this program commits reaches its hub and its sink, in commit order."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence

from perdure.contract.ports import EventSink, WorkerFault
from perdure.contract.registry import Registry
from perdure.model.events import Event
from perdure.runtime.hub import ChangeHub
from perdure.runtime.spawner import Spawner
from perdure.transitions.commands import AnyReceipt, ClaimReceipt, Receipt

logger = logging.getLogger("perdure")

SINK_BOUND_S = 5.0
SINK_BACKLOG = 100_000


def log_fault(fault: WorkerFault) -> None:
    """Where faults go in any case."""
    detail = f"\n{fault.detail}" if fault.detail else ""
    level = logging.WARNING if fault.kind == "undelivered" else logging.ERROR  # nobody's fault, as a rule
    logger.log(level, "%s: %s [%s]%s", fault.kind, fault.message, fault.process_id or "-", detail)


def watch(registry: Registry, hub: ChangeHub, pump: SinkPump | None = None) -> Callable[[], None]:
    """Publish every commit of this registry to the hub, and its events to the pump. Returns what ends it."""

    def committed(receipts: Sequence[AnyReceipt]) -> None:
        for receipt in receipts:
            match receipt:
                case Receipt(events=events, replayed=replayed, record=record):
                    hub.publish_record(record)
                    if pump is not None and not replayed:
                        pump.offer(events)
                case ClaimReceipt(events=events, claimed=claimed, ended=ended):
                    for one in claimed:
                        hub.publish_record(one.record)
                    for record in ended:
                        hub.publish_record(record)
                    if pump is not None:
                        pump.offer(events)

    return registry.observe(committed)


class SinkPump:
    """Carries events to a sink one after the other, in commit order, without ever holding up a commit.

    A sink that raises loses that event; one that takes longer than its bound is cancelled and loses it; one that
    falls behind by more than the backlog loses the oldest. Each is reported as a fault. The log stays complete.
    """

    def __init__(self, sink: EventSink, spawner: Spawner, *, bound_s: float = SINK_BOUND_S) -> None:
        self._sink, self._spawner, self._bound_s = sink, spawner, bound_s
        self._waiting: deque[Event | WorkerFault] = deque()
        self._last: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def offer(self, events: Sequence[Event]) -> None:
        """Queue events that were just committed. A replayed one (an old sequence) is not sent again."""
        for event in events:
            if event.sequence > self._last.get(event.process_id, 0):
                self._last[event.process_id] = event.sequence
                self._enqueue(event)
            if event.type in ("process.completed", "process.failed", "process.cancelled", "process.abandoned"):
                self._ended(event)

    def _ended(self, event: Event) -> None:
        """Nothing but bookkeeping follows an end: its sequence need not be remembered once it is long past."""
        if len(self._last) > SINK_BACKLOG:
            self._last.pop(next(iter(self._last)))

    def report(self, fault: WorkerFault) -> None:
        """Send a fault to the sink if it takes faults; it is logged in any case."""
        log_fault(fault)
        if hasattr(self._sink, "report"):
            self._enqueue(fault)

    def _enqueue(self, item: Event | WorkerFault) -> None:
        if len(self._waiting) >= SINK_BACKLOG:
            self._waiting.popleft()
            logger.error("sink: more than %d events behind; the oldest was dropped", SINK_BACKLOG)
        self._waiting.append(item)
        if self._task is None or self._task.done():
            self._task = self._spawner.spawn(self._carry(), "perdure-sink")

    async def _carry(self) -> None:
        while self._waiting:
            item = self._waiting.popleft()
            try:
                async with asyncio.timeout(self._bound_s):
                    if isinstance(item, Event):
                        await self._sink.emit(item)
                    else:
                        answer = self._sink.report(item)  # type: ignore[attr-defined]  # asked for by hasattr above
                        if inspect.isawaitable(answer):
                            await answer
            except Exception as error:  # the sink is the user's; whatever it raises, events go on
                logger.exception("sink: %r was lost to the sink: %r", item, error)

    async def flush(self, within_s: float) -> None:
        """Give the sink so long to take what waits."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=within_s)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
