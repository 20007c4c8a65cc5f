"""Durable operations on our own log: done once, recorded before the code sees what they gave, and found on replay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from perdure.contract.ports import Run, Suspended
from perdure.engines.python.effects import StepCall
from perdure.engines.python.journal import (
    AnyEntry,
    CancelDelivered,
    ChildStarted,
    Journal,
    RaceDecided,
    StepCompleted,
    StepFailure,
    TimerSet,
    ValueRecorded,
    VersionMarked,
    WaitResolved,
    replay_key,
)
from perdure.engines.python.parking import ParkingLot
from perdure.engines.python.support import Support
from perdure.errors import (
    InfrastructureFailure,
    PerdureError,
    ReplayMismatch,
    StepFailed,
    StoreError,
)
from perdure.failures import error_detail
from perdure.model.events import Event
from perdure.model.outcomes import Outcome
from perdure.model.registration import Registration, RetryPolicy
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait
from perdure.transitions.commands import AppendEvent, LeaseRight, Receipt, Register, Suspend, Wake
from perdure.transitions.retries import delay_ms

T = TypeVar("T")

LOOK_AGAIN_S = 1.0
"""A parked branch looks at the registry at least this often: a hint of another program's commit may be lost."""

NO_RETRY = RetryPolicy(max_attempts=1)


class LogEffects:
    """The effects of one execution, over the journal of its process."""

    def __init__(self, run: Run, journal: Journal, support: Support) -> None:
        self._run, self._journal, self._support = run, journal, support
        self._registry = support.registry
        rerunnable = run.record.registration.recovery == "rerunnable"
        self.lot = ParkingLot(run, support.parking_s if rerunnable else None, self._suspend, support.spawn)
        self._taken = journal.taken_signals()
        self._cancel_delivered = False

    @property
    def process_id(self) -> str:
        return self._run.record.registration.id

    # --- steps ------------------------------------------------------------------------------------------------

    async def run_step(self, call: StepCall) -> msgspec.Raw:
        asked = None if call.arguments is None else call.arguments.decode()
        done = self._journal.find(StepCompleted, call.key)
        if isinstance(done, StepCompleted):
            _check_arguments(call.key, done.arguments, asked)
            return done.value
        failed = self._journal.find(StepFailure, call.key)
        if isinstance(failed, StepFailure):
            _check_arguments(call.key, failed.arguments, asked)
            raise StepFailed(call.key, failed.error.type, failed.error.message)
        await self.deliver_cancel(call.key)
        policy, tries = call.retry or NO_RETRY, 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(call.timeout_s):
                    value = msgspec.Raw(await call.code())
                break
            except (StoreError, InfrastructureFailure):
                raise
            except Exception as error:
                detail = error_detail(error, self._run.record.state.attempt)
                final = tries >= policy.max_attempts or not detail.retryable or detail.type in policy.non_retryable
                if final:
                    failures = self._run.record.state.failures
                    await self._append(
                        StepFailure(key=call.key, error=detail, arguments=asked, tries=tries, failures=failures)
                    )
                    raise StepFailed(call.key, detail.type, detail.message) from error
            await self._support.clock.sleep(delay_ms(policy, tries, self._support.ids.fraction()) / 1000)
        await self._append(StepCompleted(call.key, value, asked, tries))
        return value

    # --- waits ------------------------------------------------------------------------------------------------

    async def sleep_until(self, key: str, due_in_ms: int) -> None:
        if self._journal.find(WaitResolved, key) is not None:
            return
        due_at_ms = await self._due_at_ms(key, due_in_ms)

        async def look() -> bool | None:
            return True if self._registry.now().wall_ms >= due_at_ms else None

        await self._until(key, (TimerWait(due_at_ms),), look, self.process_id, due_at_ms)
        await self._append(WaitResolved(key=key, by="timer"))

    async def wait_signal(self, key: str, name: str, within_ms: int | None) -> msgspec.Raw | None:
        resolved = self._journal.find(WaitResolved, key)
        if isinstance(resolved, WaitResolved):
            return resolved.payload if resolved.by == "signal" else None
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

        wait = SignalWait(name, len(self._signals_taken(name)) + 1)
        waits: tuple[Wait, ...] = (wait,) if due_at_ms is None else (wait, TimerWait(due_at_ms))
        found = await self._until(key, waits, look, self.process_id, due_at_ms)
        try:
            await self._append(found)
        except BaseException:
            self._taken.discard(found.sequence or 0)
            raise
        return found.payload if found.by == "signal" else None

    def _signals_taken(self, name: str) -> list[int]:
        known = {event.sequence for event in self._journal.signals.get(name, ())}
        return sorted(known & self._taken)

    async def _next_signal(self, name: str) -> Event | None:
        """The first signal of that name that no wait has taken."""
        known = self._journal.signals.setdefault(name, [])
        for event in known:
            if event.sequence not in self._taken:
                return event
        after = known[-1].sequence if known else 0
        event_or_none = await self._registry.find_event(self.process_id, f"signal.{name}", after)
        if event_or_none is not None and all(event_or_none.sequence != e.sequence for e in known):
            known.append(event_or_none)
            if event_or_none.sequence not in self._taken:
                return event_or_none
        return next((event for event in known if event.sequence not in self._taken), None)

    async def _due_at_ms(self, key: str, within_ms: int) -> int:
        """When a wait is over: fixed when it was first asked for, in the log."""
        entry = self._journal.find(TimerSet, key)
        if isinstance(entry, TimerSet):
            return entry.due_at_ms
        await self.deliver_cancel(key)
        due_at_ms = self._registry.now().wall_ms + within_ms
        await self._append(TimerSet(key=key, due_at_ms=due_at_ms))
        return due_at_ms

    async def _until(
        self,
        key: str,
        waits: tuple[Wait, ...],
        look: Callable[[], Awaitable[T | None]],
        watched: str,
        due_at_ms: int | None = None,
    ) -> T:
        """Look until there is something, parked in between; listens before it looks, so nothing falls in between."""
        await self.deliver_cancel(key)
        loop, parked = asyncio.get_running_loop(), _Parked()
        self._support.listen(watched, parked.tick)
        try:
            while True:
                parked.ticked = False
                found = await look()
                if found is not None:
                    return found
                async with self.lot.parked(waits) as signal:
                    parked.signal = signal
                    if parked.ticked:
                        continue
                    left_s = LOOK_AGAIN_S
                    if due_at_ms is not None:
                        left_s = min(left_s, max(0.0, (due_at_ms - self._registry.now().wall_ms) / 1000))
                    timer = loop.call_later(left_s, parked.tick, watched)
                    try:
                        await signal
                    except asyncio.CancelledError:
                        await self._record_cancel(key)
                        raise
                    finally:
                        timer.cancel()
                        parked.signal = None
        finally:
            self._support.unlisten(watched, parked.tick)

    async def _suspend(self, waits: tuple[Wait, ...]) -> bool:
        """Suspend the row; whether it was. A child that ended in between wakes it again at once."""
        command = Suspend(process_id=self.process_id, execution=LeaseRight(self._run.lease.key), waits=waits)
        receipt: Receipt = await self._registry.execute(command)
        if receipt.answer != "applied":
            return False
        for wait in waits:
            if isinstance(wait, ChildWait) and await self._child_outcome(wait.child_id) is not None:
                await self._registry.execute(Wake(process_id=self.process_id, wait=wait, cause="it had ended already"))
        return True

    # --- children ---------------------------------------------------------------------------------------------

    async def start_child(self, key: str, registration: Registration) -> str:
        entry = self._journal.find(ChildStarted, key)
        if isinstance(entry, ChildStarted):
            return entry.child_id
        await self.deliver_cancel(key)
        started = ChildStarted(key=key, child_id=registration.id)
        register = Register(process_id=registration.id, registration=registration)
        for answer in await self._registry.execute_together((self._entry_command(started), register)):
            if isinstance(answer, PerdureError):
                raise answer
        self._journal.add(started)
        return registration.id

    async def await_child(self, key: str, child_id: str) -> Outcome:
        resolved = self._journal.find(WaitResolved, key)
        if isinstance(resolved, WaitResolved) and resolved.outcome is not None:
            return resolved.outcome
        outcome: Outcome = await self._until(
            key, (ChildWait(child_id),), lambda: self._child_outcome(child_id), child_id
        )
        await self._append(WaitResolved(key=key, by="child", outcome=outcome))
        return outcome

    async def _child_outcome(self, child_id: str) -> Outcome | None:
        return (await self._registry.get(child_id)).outcome

    # --- the rest ---------------------------------------------------------------------------------------------

    async def emit(self, key: str, event_type: str, payload: msgspec.Raw) -> Event:
        receipt: Receipt = await self._registry.execute(
            AppendEvent(
                process_id=self.process_id, type=event_type, payload=payload, replay_key=f"emit:{key}",
                execution=LeaseRight(self._run.lease.key),
            )
        )  # fmt: skip
        return receipt.events[0]

    async def record_value(self, key: str, make: Callable[[], bytes]) -> msgspec.Raw:
        entry = self._journal.find(ValueRecorded, key)
        if isinstance(entry, ValueRecorded):
            return entry.value
        await self.deliver_cancel(key)
        value = msgspec.Raw(make())
        await self._append(ValueRecorded(key, value))
        return value

    async def mark_version(self, change_id: str, newest: int) -> int:
        entry = self._journal.find(VersionMarked, change_id)
        if isinstance(entry, VersionMarked):
            return entry.version
        version = 1 if self._journal.replaying else newest
        await self._append(VersionMarked(key=change_id, version=version))
        return version

    def decided_race(self, key: str) -> int | None:
        entry = self._journal.find(RaceDecided, key)
        return entry.winner if isinstance(entry, RaceDecided) else None

    async def decide_race(self, key: str, winner: int, losers: tuple[str, ...]) -> None:
        await self._append(RaceDecided(key=key, winner=winner, losers=losers))
        self._taken = self._journal.taken_signals()

    # --- cancellation -----------------------------------------------------------------------------------------

    def told_to_stop(self) -> bool:
        """Whether the code may be interrupted now. While it replays it goes on: the request reaches it where it
        reached it before, or at the first operation that is new."""
        return not self._journal.replaying

    def interrupts(self, task: asyncio.Task[Any]) -> None:
        """What was put off during replay interrupts this task once the replay is over, unless it was delivered."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if self._run.cancel_reason is not None and not self._cancel_delivered and not task.done():
                task.cancel(self._run.cancel_reason)

        def live() -> None:
            if self._run.cancel_reason is not None:
                loop.call_soon(interrupt)

        self._journal.on_live = live
        if not self._journal.replaying:
            live()

    async def deliver_cancel(self, key: str) -> None:
        """Before an operation is done: raise what was delivered here before, or what has been asked for meanwhile."""
        if self.lot.suspended:
            raise Suspended
        if self._journal.find(CancelDelivered, key) is not None:
            self._cancel_delivered = True
            raise asyncio.CancelledError(self._run.cancel_reason)
        if self._run.cancel_reason is not None and not self._cancel_delivered:
            await self._record_cancel(key)
            raise asyncio.CancelledError(self._run.cancel_reason)

    async def _record_cancel(self, key: str) -> None:
        """Fix at which operation the request reached the code, so that a replay takes the same way."""
        if self._run.cancel_reason is not None and self._run.may_write and not self._cancel_delivered:
            self._cancel_delivered = True
            await self._append(CancelDelivered(key))

    async def _append(self, entry: AnyEntry) -> None:
        """Commit an entry; only then is it in the journal."""
        await self._registry.execute(self._entry_command(entry))
        self._journal.add(entry)

    def _entry_command(self, entry: AnyEntry) -> AppendEvent:
        return AppendEvent(
            process_id=self.process_id,
            type=entry.TYPE,
            payload=msgspec.Raw(msgspec.json.encode(entry)),
            replay_key=replay_key(entry.TYPE, entry.key),
            execution=LeaseRight(self._run.lease.key),
        )


class _SignalPayload(msgspec.Struct):
    payload: msgspec.Raw


class _Parked:
    """Wakes one parked branch; a tick that comes while it looks is remembered."""

    def __init__(self) -> None:
        self.ticked = False
        self.signal: asyncio.Future[None] | None = None

    def tick(self, process_id: str) -> None:
        self.ticked = True
        if self.signal is not None and not self.signal.done():
            self.signal.set_result(None)


def _check_arguments(key: str, recorded: str | None, asked: str | None) -> None:
    if recorded is not None and asked is not None and recorded != asked:
        raise ReplayMismatch(key, recorded, asked)
