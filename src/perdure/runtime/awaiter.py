"""Waiting: subscribe, read, wait for a tick or the backoff, read again. No change is ever missed, only late.

However many waits there are, they share one look at the registry: it asks which of them have ended, and only those
that have are read and woken. An end that this program has committed itself needs no reading: it never changes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from contextlib import contextmanager

from perdure.contract.registry import Registry
from perdure.errors import CallerDeparted, NoLongerRetained, ProcessFinishedWithoutEvent
from perdure.model.events import Event
from perdure.model.outcomes import Outcome, ProcessAwaitOutput, RetainedNoLonger
from perdure.model.record import ProcessRecord
from perdure.runtime.hub import ChangeHub
from perdure.runtime.spawner import Spawner

FIRST_BACKOFF_S = 0.025
BACKOFF_CAP_S = 1.0


Ended = ProcessRecord | None
"""The record that shows the end, or None: the row is no more."""


class _Watch:
    """All waits on one process: when it is looked at next, and who is woken when it has ended."""

    __slots__ = ("backoff_s", "due_s", "process_id", "waiters")

    def __init__(self, process_id: str) -> None:
        self.process_id = process_id
        self.waiters: set[asyncio.Future[Ended]] = set()
        self.backoff_s, self.due_s = FIRST_BACKOFF_S, 0.0


class EndWatcher:
    """Looks, for all waits at once, which processes have ended: after 25 ms, doubling up to 1 s, and on a hub tick."""

    def __init__(self, registry: Registry, hub: ChangeHub, spawner: Spawner) -> None:
        self._registry, self._hub, self._spawner = registry, hub, spawner
        self._watches: dict[str, _Watch] = {}
        self._due: list[tuple[float, str]] = []
        self._ticked: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, process_id: str) -> asyncio.Future[Ended]:
        """A future that is done once the process is live no more. Give it to `remove` in any case."""
        watch = self._watches.get(process_id)
        if watch is None:
            watch = self._watches[process_id] = _Watch(process_id)
            self._hub.listen_for_end(process_id, self._tick)
            self._schedule(watch)
        waiter: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        watch.waiters.add(waiter)
        if self._task is None or self._task.done():
            self._task = self._spawner.spawn(self._look_while_watched(), "perdure-end-watcher")
        return waiter

    def remove(self, process_id: str, waiter: asyncio.Future[Ended]) -> None:
        if waiter.done() and not waiter.cancelled():
            waiter.exception()  # whoever gave up for another reason hears of this one by it: it is no unheard error
        watch = self._watches.get(process_id)
        if watch is None:
            return
        watch.waiters.discard(waiter)
        if not watch.waiters:
            del self._watches[process_id]
            self._hub.unlisten_for_end(process_id, self._tick)
            if not self._watches:
                self._wake.set()

    def _tick(self, process_id: str, record: Ended) -> None:
        if record is not None:
            self._answer(process_id, record)
        else:
            self._ticked[process_id] = None
            self._wake.set()

    def _answer(self, process_id: str, record: Ended) -> None:
        watch = self._watches.get(process_id)
        for waiter in watch.waiters if watch is not None else ():
            if not waiter.done():
                waiter.set_result(record)

    def _schedule(self, watch: _Watch) -> None:
        watch.due_s = asyncio.get_running_loop().time() + watch.backoff_s
        heapq.heappush(self._due, (watch.due_s, watch.process_id))
        if self._due[0][0] == watch.due_s:
            self._wake.set()

    async def _look_while_watched(self) -> None:
        while self._watches:
            ticked, due = self._take_ticked(), self._take_due()
            if ticked or due:
                await self._look(ticked, due)
            await self._sleep()

    async def _sleep(self) -> None:
        if not self._ticked and self._watches:
            wait_s = self._due[0][0] - asyncio.get_running_loop().time() if self._due else BACKOFF_CAP_S
            if wait_s > 0:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        self._wake.clear()

    def _take_ticked(self) -> list[_Watch]:
        """The watches of processes that may just have ended; their backoff begins anew."""
        ticked, self._ticked = self._ticked, {}
        watches = [watch for process_id in ticked if (watch := self._watches.get(process_id)) is not None]
        for watch in watches:
            watch.backoff_s = FIRST_BACKOFF_S
        return watches

    def _take_due(self) -> list[_Watch]:
        """The watches whose backoff is over; it doubles."""
        now_s, due = asyncio.get_running_loop().time(), []
        while self._due and self._due[0][0] <= now_s:
            due_s, process_id = heapq.heappop(self._due)
            watch = self._watches.get(process_id)
            if watch is not None and watch.due_s == due_s:
                watch.backoff_s = min(watch.backoff_s * 2, BACKOFF_CAP_S)
                due.append(watch)
        return due

    async def _look(self, ticked: list[_Watch], due: list[_Watch]) -> None:
        """Read what ticked; of what is merely due, only what a cheap look shows to have ended."""
        try:
            ids = [watch.process_id for watch in ticked]
            if due:
                ids += await self._registry.ended_among([watch.process_id for watch in due])
            records = await self._registry.get_many(ids) if ids else {}
        except Exception as error:  # the store's: whoever waits is told, nobody waits it out
            for watch in (*ticked, *due):
                for waiter in watch.waiters:
                    if not waiter.done():
                        waiter.set_exception(error)
        else:
            for process_id in ids:
                record = records.get(process_id)
                if record is None or not record.is_live:
                    self._answer(process_id, record)
        for watch in (*ticked, *due):
            if self._watches.get(watch.process_id) is watch:
                self._schedule(watch)


class Awaiter:
    """Waits on a registry. It subscribes before it reads, so no change falls in between."""

    def __init__(self, registry: Registry, hub: ChangeHub, spawner: Spawner) -> None:
        self._registry, self._hub = registry, hub
        self._ends = EndWatcher(registry, hub, spawner)

    async def await_terminal(self, process_id: str, *, live_at: int | None = None) -> ProcessAwaitOutput:
        """The outcome of the process, as soon as it has one. Bound it with `asyncio.timeout`.

        `live_at`: a mark of the hub at which the process is known to have been live.

        Raises UnknownProcess, CallerDeparted, or the store's error: none of them is waited for.
        """
        try:
            return await self._until_ended(process_id, live_at)
        except NoLongerRetained as pruned:
            return RetainedNoLonger(pruned.status, pruned.pruned_at_ms)

    async def _until_ended(self, process_id: str, live_at: int | None) -> Outcome:
        waiter = self._ends.add(process_id)
        known_live = live_at is not None and self._hub.heard_no_end_since(live_at, process_id)
        try:
            record: Ended = None if known_live else await self._registry.get(process_id)
            while True:
                if record is not None and record.outcome is not None:
                    return record.outcome
                if record is not None and record.status == "caller_departed":
                    raise CallerDeparted(process_id)
                record = await waiter
                self._ends.remove(process_id, waiter)
                waiter = self._ends.add(process_id)
                if record is None:  # gone, or unreadable: the point read says which
                    record = await self._registry.get(process_id)
        finally:
            self._ends.remove(process_id, waiter)

    @contextmanager
    def watching_end(self, process_id: str) -> Iterator[asyncio.Future[Ended]]:
        """For the block, a future that is done once the process is live no more: with its record, None if its row is no
        more, or the store's error. Read the record inside the block: what had ended before may be noticed late."""
        waiter = self._ends.add(process_id)
        try:
            yield waiter
        finally:
            self._ends.remove(process_id, waiter)

    async def await_event(self, process_id: str, event_type: str, after_sequence: int = 0) -> Event:
        """The first event of that type past the sequence; an old one at once.

        Raises ProcessFinishedWithoutEvent if the process ends without one.
        """
        with self._hub.subscribe(process_id) as subscription:
            backoff_s = FIRST_BACKOFF_S
            while True:
                subscription.clear()
                record = await self._registry.get(process_id)  # before the events: an end read here hides none
                event = await self._registry.find_event(process_id, event_type, after_sequence)
                if event is not None:
                    return event
                if record.is_terminal:
                    raise ProcessFinishedWithoutEvent(process_id, event_type, record.status)
                if record.status == "caller_departed":
                    raise CallerDeparted(process_id)
                changed = await subscription.changed_within(backoff_s)
                backoff_s = FIRST_BACKOFF_S if changed else min(backoff_s * 2, BACKOFF_CAP_S)

    async def await_change(self, process_id: str, known: ProcessRecord) -> ProcessRecord:
        """The record once it is another than `known`."""
        with self._hub.subscribe(process_id) as subscription:
            backoff_s = FIRST_BACKOFF_S
            while True:
                subscription.clear()
                record = await self._registry.get(process_id)
                if record.state.last_sequence != known.state.last_sequence:
                    return record
                changed = await subscription.changed_within(backoff_s)
                backoff_s = FIRST_BACKOFF_S if changed else min(backoff_s * 2, BACKOFF_CAP_S)
