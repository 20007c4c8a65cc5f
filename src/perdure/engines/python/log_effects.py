"""Durable operations on our own log: done once, recorded before the code sees what they gave, and found on replay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from perdure.contract.ports import Run
from perdure.engines.python.effects import StepCall
from perdure.engines.python.journal import (
    ChildStarted,
    Journal,
    RaceDecided,
    StepCompleted,
    StepFailure,
    TimerSet,
    ValueRecorded,
    VersionMarked,
    WaitResolved,
)
from perdure.engines.python.parking import Parked, ParkingLot
from perdure.engines.python.recorder import Recorder
from perdure.engines.python.strands import Strand
from perdure.engines.python.support import Support
from perdure.errors import InfrastructureFailure, InvalidRequest, PerdureError, ReplayMismatch, StepFailed, StoreError
from perdure.failures import error_detail
from perdure.model.events import Event
from perdure.model.outcomes import Outcome
from perdure.model.registration import Registration, RetryPolicy
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait
from perdure.transitions.commands import AwaitEnd, LeaseRight, Register, RowCommand, Suspend, Wake
from perdure.transitions.retries import delay_ms

T = TypeVar("T")

LOOK_AGAIN_S = 1.0
"""A parked branch looks at the registry at least this often: a hint of another program's commit may be lost."""

NO_RETRY = RetryPolicy(max_attempts=1)


class LogEffects(Recorder):
    """The effects of one execution, over the journal of its process."""

    def __init__(
        self, run: Run, journal: Journal, support: Support, main: Strand, task: asyncio.Task[Any], is_async: bool
    ) -> None:
        super().__init__(run, journal, support, main, task, is_async)
        rerunnable = run.record.registration.recovery == "rerunnable"
        self.lot = ParkingLot(
            run, support.parking_s if rerunnable else None, self._suspend, self._look_after, support.spawn
        )  # fmt: skip
        self._taken = journal.taken_signals()

    # --- steps ------------------------------------------------------------------------------------------------

    async def run_step(self, call: StepCall) -> msgspec.Raw:
        asked = None if call.arguments is None else call.arguments.decode()
        done = self._journal.find(StepCompleted, call.key)
        if done is not None:
            _check_arguments(call.key, done.arguments, asked)
            return done.value
        failed = self._journal.find(StepFailure, call.key)
        if failed is not None:
            _check_arguments(call.key, failed.arguments, asked)
            raise StepFailed(call.key, failed.error.type, failed.error.message)
        async with self.operation(call.key):
            return await self._run_step(call, asked)

    async def _run_step(self, call: StepCall, asked: str | None) -> msgspec.Raw:
        policy, tries, strand = call.retry or NO_RETRY, 0, self.strand
        while True:
            tries += 1
            try:
                strand.step = call.key
                if call.transactional:
                    return await self._run_within(call, asked, tries)
                if call.timeout_s is None:
                    value = msgspec.Raw(await call.code())
                else:
                    async with asyncio.timeout(call.timeout_s):
                        value = msgspec.Raw(await call.code())
                break
            except (StoreError, InfrastructureFailure):
                raise
            except Exception as error:
                if error is self.broken:
                    raise
                detail = error_detail(error, self._run.record.state.attempt)
                hopeless = isinstance(error, InvalidRequest) or not detail.retryable
                if hopeless or tries >= policy.max_attempts or detail.type in policy.non_retryable:
                    failures = self._run.record.state.failures
                    await self.append(
                        StepFailure(key=call.key, error=detail, arguments=asked, tries=tries, failures=failures)
                    )
                    raise StepFailed(call.key, detail.type, detail.message) from error
            finally:
                strand.step = None
            await self._support.clock.sleep(delay_ms(policy, tries, self._support.ids.fraction()) / 1000)
            self.check_open()
        await self.append(StepCompleted(call.key, value, asked, tries))
        return value

    async def _run_within(self, call: StepCall, asked: str | None, tries: int) -> msgspec.Raw:
        """Run it in the transaction that commits its entry."""
        made: list[StepCompleted] = []

        async def work(connection: Any) -> RowCommand:
            made.append(StepCompleted(call.key, msgspec.Raw(await call.code(connection)), asked, tries))
            return self.entry_command(made[-1])

        await self.commit_within(work, lambda: self._journal.add(made[-1]))
        return made[-1].value

    # --- waits ------------------------------------------------------------------------------------------------

    async def sleep_until(self, key: str, due_in_ms: int) -> None:
        if self._journal.find(WaitResolved, key) is not None:
            return
        async with self.operation(key):
            due_at_ms = await self._due_at_ms(key, due_in_ms)

            async def look() -> bool | None:
                return True if self._registry.now().wall_ms >= due_at_ms else None

            await self._until(lambda: (TimerWait(due_at_ms),), look, self.process_id, due_at_ms)
            await self.append(WaitResolved(key=key, by="timer"))

    async def wait_signal(self, key: str, name: str, within_ms: int | None) -> msgspec.Raw | None:
        resolved = self._journal.find(WaitResolved, key)
        if resolved is None:
            async with self.operation(key):
                resolved = await self._wait_signal(key, name, within_ms)
        return resolved.payload if resolved.by == "signal" else None

    async def _wait_signal(self, key: str, name: str, within_ms: int | None) -> WaitResolved:
        due_at_ms = None if within_ms is None else await self._due_at_ms(key, within_ms)

        async def look() -> WaitResolved | None:
            event = await self._next_signal(name)
            if event is not None:
                self._taken.add(event.sequence)
                payload = msgspec.json.decode(event.payload, type=_SignalPayload).payload
                return WaitResolved(key=key, by="signal", sequence=event.sequence, payload=payload)
            if due_at_ms is not None and self._registry.now().wall_ms >= due_at_ms:
                return WaitResolved(key=key, by="timeout")
            return None

        def waits() -> tuple[Wait, ...]:
            signal = SignalWait(name, self._count_taken(name) + 1)
            return (signal,) if due_at_ms is None else (signal, TimerWait(due_at_ms))

        found: WaitResolved | None = None
        try:
            found = await self._until(waits, look, self.process_id, due_at_ms)
            await self.append(found)
        except BaseException:
            if found is not None and found.sequence is not None:
                self._taken.discard(found.sequence)
            raise
        return found

    def _count_taken(self, name: str) -> int:
        return len({event.sequence for event in self._journal.signals.get(name, ())} & self._taken)

    async def _next_signal(self, name: str) -> Event | None:
        """The first signal of that name that no wait has taken."""
        known = self._journal.signals.setdefault(name, [])
        while True:
            for event in known:
                if event.sequence not in self._taken:
                    return event
            after = known[-1].sequence if known else 0
            found = await self._registry.find_event(self.process_id, f"signal.{name}", after)
            if found is None:
                return next((event for event in known if event.sequence not in self._taken), None)
            if not known or found.sequence > known[-1].sequence:  # another wait may have found it meanwhile
                known.append(found)

    async def _due_at_ms(self, key: str, within_ms: int) -> int:
        """When a wait is over: fixed when it was first asked for, in the log."""
        entry = self._journal.find(TimerSet, key)
        if entry is not None:
            return entry.due_at_ms
        due_at_ms = self._registry.now().wall_ms + within_ms
        await self.append(TimerSet(key=key, due_at_ms=due_at_ms))
        return due_at_ms

    async def _until(
        self,
        waits: Callable[[], tuple[Wait, ...]],
        look: Callable[[], Awaitable[T | None]],
        watched: str,
        due_at_ms: int | None = None,
    ) -> T:
        """Look until there is something, parked in between; listens before it looks, so nothing falls in between."""
        parked = Parked(waits)
        self._support.listen(watched, parked.tick)
        try:
            found = await look()
            if found is None:
                async with self.lot.parked(parked):
                    while found is None:
                        left_s = LOOK_AGAIN_S
                        if due_at_ms is not None:
                            left_s = min(left_s, max(0.0, (due_at_ms - self._registry.now().wall_ms) / 1000))
                        await parked.turn(left_s)
                        found = await look()
            return found
        finally:
            self._support.unlisten(watched, parked.tick)

    async def _suspend(self, waits: tuple[Wait, ...]) -> bool:
        """Suspend the row; whether it was. The ends of the children are marked to be served: also one that has come
        already wakes it, by whoever serves it."""
        children = [wait for wait in waits if isinstance(wait, ChildWait)]
        command = Suspend(process_id=self.process_id, execution=LeaseRight(self._run.lease.key), waits=waits)
        receipt = await self._support.commit(command, *(AwaitEnd(process_id=wait.child_id) for wait in children))
        return receipt.answer == "applied"

    async def _look_after(self, waits: tuple[Wait, ...]) -> None:
        """Suspended, wake it again at once where a child had ended in between."""
        for wait in waits:
            if isinstance(wait, ChildWait):
                with suppress(PerdureError):  # whoever serves the end wakes it
                    if await self._child_outcome(wait.child_id) is not None:
                        cause = "it had ended already"
                        await self._registry.execute(Wake(process_id=self.process_id, wait=wait, cause=cause))

    # --- children ---------------------------------------------------------------------------------------------

    async def start_child(self, key: str, registration: Registration) -> str:
        entry = self._journal.find(ChildStarted, key)
        if entry is not None:
            return entry.child_id
        async with self.operation(key):
            started = ChildStarted(key=key, child_id=registration.id)
            await self.append(started, Register(process_id=registration.id, registration=registration))
            return registration.id

    async def await_child(self, key: str, child_id: str) -> Outcome:
        resolved = self._journal.find(WaitResolved, key)
        if resolved is not None and resolved.outcome is not None:
            return resolved.outcome
        async with self.operation(key):
            outcome: Outcome = await self._until(
                lambda: (ChildWait(child_id),), lambda: self._child_outcome(child_id), child_id
            )
            await self.append(WaitResolved(key=key, by="child", outcome=outcome))
            return outcome

    async def _child_outcome(self, child_id: str) -> Outcome | None:
        return (await self._registry.get(child_id)).outcome

    # --- the rest ---------------------------------------------------------------------------------------------

    async def emit(self, key: str, event_type: str, payload: msgspec.Raw) -> Event:
        self.check_open()
        command = self.append_command(event_type, payload, f"emit:{key}")
        (receipt,) = await self.commit((command,), lambda: None)
        return receipt.events[0]

    async def record_value(self, key: str, make: Callable[[], bytes]) -> msgspec.Raw:
        entry = self._journal.find(ValueRecorded, key)
        if entry is not None:
            return entry.value
        async with self.operation(key):
            value = msgspec.Raw(make())
            await self.append(ValueRecorded(key, value))
            return value

    async def mark_version(self, scope: str, change_id: str, newest: int) -> int:
        key = scope + change_id
        entry = self._journal.find(VersionMarked, key)
        if entry is not None:
            return entry.version
        self.check_open()
        version = 1 if self._journal.is_ahead_in(scope) else newest
        await self.append(VersionMarked(key=key, version=version))
        return version

    def decided_race(self, key: str) -> int | None:
        entry = self._journal.find(RaceDecided, key)
        return None if entry is None else entry.winner

    async def decide_race(self, key: str, winner: int, losers: tuple[str, ...]) -> None:
        await self.append(RaceDecided(key=key, winner=winner, losers=losers))

    def give_back_signals(self, losers: tuple[str, ...]) -> None:
        """Waits that have lost a race have taken nothing: what they were given is there for the next ones."""
        self._taken -= self._journal.signals_taken_by(losers)


class _SignalPayload(msgspec.Struct):
    payload: msgspec.Raw


def _check_arguments(key: str, recorded: str | None, asked: str | None) -> None:
    if recorded is not None and asked is not None and recorded != asked:
        raise ReplayMismatch(key, recorded, asked)
