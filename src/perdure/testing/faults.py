"""A registry that fails on purpose: around any other one, at the calls that a plan names.

    registry = FaultyRegistry(MemoryRegistry(clock), script({("Complete", 1): FailAfter()}), clock)

Every call of a verb is counted, and the plan is asked what happens to it. Commands are named by their class
("Complete", "ClaimNext", "Renew", and "Register+ClaimNext" for two in one transaction), everything else by its method
("get", "execute_all", "enrol").
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar, assert_never

import msgspec

from perdure.clock import Clock, Moment, SystemClock
from perdure.contract.live import LiveWire
from perdure.contract.registry import CommitListener, Delivery, Registry, TransactionWork
from perdure.errors import OutcomeUnknown, PerdureError, StoreUnavailable
from perdure.model.events import Event
from perdure.model.leases import DeathProof, Enrolment, Lease, Owner
from perdure.model.progress import Progress
from perdure.model.queries import EventPage, Filter, Page, RecordPage
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition
from perdure.testing.tape import Tape
from perdure.transitions.commands import AnyReceipt, Command, Receipt, Register, Renew, RenewReceipt, Signal

T = TypeVar("T")


class FailBefore(msgspec.Struct, frozen=True):
    """StoreUnavailable is raised; nothing was written."""


class FailAfter(msgspec.Struct, frozen=True):
    """The command is committed and its answer is lost: OutcomeUnknown. A read raises StoreUnavailable instead."""


class Delay(msgspec.Struct, frozen=True):
    """The call is passed on after so many seconds of the clock."""

    seconds: float


class DelayAnswer(msgspec.Struct, frozen=True):
    """The call is passed on at once, and answered so many seconds later."""

    seconds: float


class CancelBefore(msgspec.Struct, frozen=True):
    """The calling task is cancelled before the call is passed on: nothing was written."""


class CancelAfter(msgspec.Struct, frozen=True):
    """The calling task is cancelled after the call was done, before it hears of it."""


Fault = FailBefore | FailAfter | Delay | DelayAnswer | CancelBefore | CancelAfter

Plan = Callable[[str, int], Fault | None]
"""What happens to the n-th call (from 1) of a verb; None lets it pass."""


def no_faults(verb: str, number: int) -> Fault | None:
    return None


def script(faults: Mapping[tuple[str, int], Fault]) -> Plan:
    """A plan that names each call it spoils."""
    return lambda verb, number: faults.get((verb, number))


def from_tape(tape: Tape, faults: Sequence[Fault], *, one_in: int = 10, verbs: Collection[str] | None = None) -> Plan:
    """A plan drawn from the tape: each call of these verbs (None: of all) is spoilt with a chance of one in `one_in`.

    The tape's 0, its dull choice, lets the call pass.
    """
    size = one_in * len(faults)

    def plan(verb: str, number: int) -> Fault | None:
        if verbs is not None and verb not in verbs:
            return None
        picked = tape.pick(size)
        return faults[size - 1 - picked] if picked >= size - len(faults) else None

    return plan


class FaultyRegistry:
    """The registry `inner`, spoilt by `plan`. The plan may be exchanged while it is in use.

    `hits` counts which faults have happened to which verbs: a test that hunts with chance asserts what it has met.
    Renewals come from a thread, not from a task: no cancellation can happen to them.
    """

    def __init__(self, inner: Registry, plan: Plan = no_faults, clock: Clock | None = None) -> None:
        self.inner, self.plan = inner, plan
        self.hits: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[str] = Counter()
        self._clock = clock or SystemClock()
        self._counting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def live_wire(self) -> LiveWire:
        return self.inner.live_wire

    def now(self) -> Moment:
        return self.inner.now()

    async def close(self) -> None:
        await self.inner.close()

    # --- how a call is spoilt ---------------------------------------------------------------------------------

    def _fault(self, verb: str) -> Fault | None:
        with self._counting:
            self.calls[verb] += 1
            number = self.calls[verb]
        return self.plan(verb, number)

    def _hit(self, verb: str, fault: Fault) -> None:
        with self._counting:
            self.hits[verb, type(fault).__name__] += 1

    def _unavailable(self, verb: str) -> StoreUnavailable:
        return StoreUnavailable(self.name, f"{verb} failed on purpose, before it was sent", "Try again.")

    def _unknown(self, verb: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            self.name, f"the answer to {verb} was lost on purpose", "Ask again with the same operation id."
        )

    async def _spoilt(self, verb: str, call: Callable[[], Awaitable[T]], *, commits: bool) -> T:
        self._loop = asyncio.get_running_loop()
        fault = self._fault(verb)
        if fault is None:
            return await call()
        self._hit(verb, fault)
        match fault:
            case FailBefore():
                raise self._unavailable(verb)
            case FailAfter():
                await call()
                raise self._unknown(verb) if commits else self._unavailable(verb)
            case Delay(seconds):
                await self._clock.sleep(seconds)
                return await call()
            case DelayAnswer(seconds):
                answer = await call()
                await self._clock.sleep(seconds)
                return answer
            case CancelBefore():
                await _cancelled_here()
            case CancelAfter():
                await call()
                await _cancelled_here()
            case _:
                assert_never(fault)
        raise AssertionError("a cancelled task went on")

    # --- commands ---------------------------------------------------------------------------------------------

    async def execute(self, command: Command) -> Any:
        return await self._spoilt(type(command).__name__, lambda: self.inner.execute(command), commits=True)

    async def execute_all(self, commands: Sequence[Command]) -> list[AnyReceipt | PerdureError]:
        return await self._spoilt("execute_all", lambda: self.inner.execute_all(commands), commits=True)

    async def execute_together(self, commands: Sequence[Command]) -> list[AnyReceipt | PerdureError]:
        verb = "+".join(type(command).__name__ for command in commands)
        return await self._spoilt(verb, lambda: self.inner.execute_together(commands), commits=True)

    async def execute_within(self, work: TransactionWork) -> Receipt:
        return await self._spoilt("execute_within", lambda: self.inner.execute_within(work), commits=True)

    async def register_joined(self, command: Register, connection: object) -> Receipt:
        """Not spoilt: what becomes of it is decided by the caller's commit."""
        return await self.inner.register_joined(command, connection)

    async def post(self, command: Signal, connection: object) -> None:
        await self.inner.post(command, connection)

    async def deliver_posted(self) -> Delivery:
        return await self._spoilt("deliver_posted", lambda: self.inner.deliver_posted(), commits=True)

    def renew_from_thread(self, command: Renew) -> ThreadFuture[RenewReceipt]:
        fault = self._fault("Renew")
        if fault is None or isinstance(fault, CancelBefore | CancelAfter):
            return self.inner.renew_from_thread(command)
        self._hit("Renew", fault)
        answer: ThreadFuture[RenewReceipt] = ThreadFuture()
        match fault:
            case FailBefore():
                answer.set_exception(self._unavailable("Renew"))
            case FailAfter():
                lost = self._unknown("Renew")
                self.inner.renew_from_thread(command).add_done_callback(lambda done: answer.set_exception(lost))
            case Delay(seconds):
                self._later(seconds, lambda: _pass_on(self.inner.renew_from_thread(command), answer))
            case DelayAnswer(seconds):
                renewed = self.inner.renew_from_thread(command)
                self._later(seconds, lambda: _pass_on(renewed, answer))
            case _:
                assert_never(fault)
        return answer

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        """On the loop, since a thread of our own would be outside of virtual time."""
        loop = self._loop or asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, seconds, what)

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        return self.inner.observe(listener)

    # --- reads ------------------------------------------------------------------------------------------------

    async def _read(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._spoilt(verb, call, commits=False)

    async def get(self, process_id: str) -> ProcessRecord:
        return await self._read("get", lambda: self.inner.get(process_id))

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        return await self._read("get_many", lambda: self.inner.get_many(process_ids))

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        return await self._read("ended_among", lambda: self.inner.ended_among(process_ids))

    async def get_lease(self, process_id: str) -> Lease | None:
        return await self._read("get_lease", lambda: self.inner.get_lease(process_id))

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        return await self._read("list", lambda: self.inner.list(filter, page))

    async def count(self, filter: Filter = Filter()) -> int:  # noqa: B008 - a frozen value
        return await self._read("count", lambda: self.inner.count(filter))

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        return await self._read("events_after", lambda: self.inner.events_after(process_id, sequence, limit))

    async def recent_events(self, process_id: str, limit: int = 100) -> EventPage:
        return await self._read("recent_events", lambda: self.inner.recent_events(process_id, limit))

    async def find_event(self, process_id: str, event_type: str, after_sequence: int) -> Event | None:
        return await self._read("find_event", lambda: self.inner.find_event(process_id, event_type, after_sequence))

    async def progress_of(self, process_ids: Collection[str]) -> dict[str, Progress]:
        return await self._read("progress_of", lambda: self.inner.progress_of(process_ids))

    async def next_due_at_ms(self, lanes: Sequence[str], now: Moment) -> int | None:
        return await self._read("next_due_at_ms", lambda: self.inner.next_due_at_ms(lanes, now))

    async def due_for_settling(self, now: Moment, incarnations: Collection[str], limit: int) -> Sequence[str]:
        return await self._read("due_for_settling", lambda: self.inner.due_for_settling(now, incarnations, limit))

    async def peer_changes(self) -> Sequence[str] | None:
        return await self._read("peer_changes", lambda: self.inner.peer_changes())

    # --- owners -----------------------------------------------------------------------------------------------

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None = None) -> None:
        await self._spoilt("enrol", lambda: self.inner.enrol(owner, definitions), commits=True)

    async def enrolled(self) -> tuple[Enrolment, ...]:
        return await self._read("enrolled", lambda: self.inner.enrolled())

    def lifeline(self, incarnation: str) -> int | None:
        return self.inner.lifeline(incarnation)

    async def withdraw(self, owner: Owner) -> None:
        await self._spoilt("withdraw", lambda: self.inner.withdraw(owner), commits=True)

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        return await self._read("prove_deaths", lambda: self.inner.prove_deaths())

    def on_peer_hint(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self.inner.on_peer_hint(listener)


async def _cancelled_here() -> None:
    """Cancel the task that runs this and let it find out here."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel("cancelled on purpose")
    await asyncio.get_running_loop().create_future()


def _pass_on(done: ThreadFuture[RenewReceipt], answer: ThreadFuture[RenewReceipt]) -> None:
    def tell(told: ThreadFuture[RenewReceipt]) -> None:
        error = told.exception()
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(told.result())

    done.add_done_callback(tell)
