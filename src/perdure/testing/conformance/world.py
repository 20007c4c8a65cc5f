"""What cases of waiting and driving run: the real worker, driver and awaiter, over the registry of a kit.

The same case runs in a simulation, where waiting moves virtual time, and on an ordinary event loop (a store with
threads of its own needs one), where the case moves the clock and what the runtime waits for by itself takes real
milliseconds.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from perdure.contract.moments import Moments
from perdure.contract.ports import EventSink, Run, WorkerFault
from perdure.contract.registry import Registry
from perdure.host import Host
from perdure.model.events import Event
from perdure.model.outcomes import ProcessAwaitOutput
from perdure.model.registration import Definition
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.options import WorkerOptions
from perdure.runtime.spawner import LoopSpawner, Spawner, TaskOnlySpawner
from perdure.runtime.worker import DurableProcessWorker
from perdure.testing.conformance.kit import WORK, Kit, raw
from perdure.testing.faults import FailBefore, FaultyRegistry, Plan, no_faults
from perdure.testing.loop import SimulationLoop

T = TypeVar("T")

Body = Callable[[Run], Awaitable[object]]

DUE_SOON_S = 5.0
"""How long a case waits for what must come at once; on an ordinary loop these are real seconds."""


def simulated() -> bool:
    return isinstance(asyncio.get_running_loop(), SimulationLoop)


def spawner_here() -> Spawner:
    return TaskOnlySpawner() if simulated() else LoopSpawner(8)


class MortalSpawner:
    """Another spawner's tasks, whose errors nobody need hear once their owner is dead: a crash reports to no one."""

    def __init__(self, inner: Spawner, is_dead: Callable[[], bool]) -> None:
        self._inner, self._is_dead = inner, is_dead
        self.as_future, self.start_thread = inner.as_future, inner.start_thread
        self.in_thread, self.close = inner.in_thread, inner.close

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return self._mortal(self._inner.spawn(work, name))

    def spawn_kept(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return self._mortal(self._inner.spawn_kept(work, name))

    def _mortal(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self._is_dead() and not task.cancelled():
            task.exception()


async def elapse(kit: Kit, seconds: float) -> None:
    """Let so much of the kit's time pass."""
    if simulated():
        await kit.clock.sleep(seconds)
    else:
        kit.clock.advance(seconds)


async def soon(waiting: Awaitable[T]) -> T:
    """What must come at once: a case that waits for ever fails instead."""
    async with asyncio.timeout(DUE_SOON_S):
        return await waiting


async def loop_turns(count: int = 10) -> None:
    """Let everything that is ready run, without any time passing."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turned: asyncio.Future[None] = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned


def holds(now: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """For `Kit.until`: something that can be seen without asking the store."""

    async def look() -> bool:
        return now()

    return look


async def loop_seconds(seconds: float) -> None:
    """Let so many seconds of the loop's own time pass: virtual ones in a simulation, else real ones."""
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


async def returns(run: Run) -> object:
    """A body that returns its own id."""
    return run.record.id


class Engine:
    """An engine whose code is one coroutine function for all processes. It notes every entry and counts overlaps."""

    def __init__(self, body: Body, definitions: Sequence[Definition] = (WORK,)) -> None:
        self.definitions = definitions
        self.body = body
        self.entries: list[tuple[str, int]] = []
        self.inside: list[str] = []
        self.overlaps: list[str] = []
        self._prepared: Coroutine[Any, Any, msgspec.Raw] | None = None

    def prepare(self, run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
        self._prepared = self._run(run)
        return self._prepared

    def close_unentered(self) -> None:
        """Nobody will run what was prepared last, if nobody has begun to."""
        if self._prepared is not None and inspect.getcoroutinestate(self._prepared) == inspect.CORO_CREATED:
            self._prepared.close()

    async def _run(self, run: Run) -> msgspec.Raw:
        id = run.record.id
        self.entries.append((id, run.lease.fence))
        if id in self.inside:
            self.overlaps.append(id)
        self.inside.append(id)
        try:
            return raw(await self.body(run))
        finally:
            self.inside.remove(id)


class Sink:
    """An event sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[WorkerFault] = []

    async def emit(self, event: Event) -> None:
        self.events.append(event)

    def report(self, fault: WorkerFault) -> None:
        self.faults.append(fault)


class World:
    """A worker and a driver over the kit's registry (or another), with a plan of faults between. An async context."""

    def __init__(
        self,
        kit: Kit,
        body: Body = returns,
        *,
        registry: Registry | None = None,
        plan: Plan = no_faults,
        name: str = "w",
        definitions: Sequence[Definition] = (WORK,),
        sink: EventSink | None = None,
        moments: Moments | None = None,
        **options: Any,
    ) -> None:
        self.kit = kit
        self.spawner = MortalSpawner(spawner_here(), lambda: self.dead)
        self.registry = FaultyRegistry(registry or kit.registry, plan, kit.clock)
        self.engine = Engine(body, definitions)
        self.faults: list[WorkerFault] = []
        self.dead = False
        self._tasks: list[asyncio.Task[Any]] = []
        self.worker = DurableProcessWorker(
            self.registry, [self.engine], name=name, options=WorkerOptions(**options), clock=kit.clock, ids=kit.ids,
            spawner=self.spawner, report=self.faults.append, moments=moments,
        )  # fmt: skip
        self.driver = ProcessWorkDriver(self.registry, self.worker, sink, spawner=self.spawner)

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.dead:
            self.registry.plan = no_faults
        if not (self.dead and simulated()):  # there its tasks were killed: nothing of it is left to stop
            await self.worker.drain(0)
        self.spawner.close()

    def die(self) -> None:
        """What a crash leaves: nothing of this worker reaches the store any more, and in a simulation nothing runs."""
        self.dead = True
        self.registry.plan = lambda verb, number: FailBefore()
        self.engine.close_unentered()
        loop = asyncio.get_running_loop()
        if isinstance(loop, SimulationLoop):
            loop.kill(loop.family(*self._tasks))

    async def drive(self, reason: str = "the case asks") -> tuple[str, ...]:
        """One drive; the ids that were admitted."""
        return (await self.driver.claim_and_run_pending(reason)).admitted

    async def ended(self, id: str) -> ProcessAwaitOutput:
        """How the process ended; the case fails if it doesn't end soon."""
        return await soon(self.driver.await_terminal(id))

    def fault_kinds(self) -> list[str]:
        return [fault.kind for fault in self.faults]

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self.spawner.spawn(work, "case")
        self._tasks.append(task)
        return task


def host_over(kit: Kit, registry: Registry | None = None, **options: Any) -> Host:
    """A host over the kit's registry (or another), in the kit's time."""
    return Host(
        "kit", registry=registry or kit.registry, clock=kit.clock, ids=kit.ids, spawner=spawner_here(), **options
    )


class Gate:
    """A body that waits inside a process until the case lets it go on."""

    def __init__(self) -> None:
        self.entered: dict[str, asyncio.Event] = {}
        self.opened: dict[str, asyncio.Event] = {}

    async def __call__(self, run: Run) -> object:
        id = run.record.id
        self.entered.setdefault(id, asyncio.Event()).set()
        await self.opened.setdefault(id, asyncio.Event()).wait()
        return id

    async def until_entered(self, id: str) -> None:
        await soon(self.entered.setdefault(id, asyncio.Event()).wait())

    def open(self, id: str) -> None:
        self.opened.setdefault(id, asyncio.Event()).set()
