"""Hosts in a simulation, on one registry in memory, that can be crashed at any call of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar, cast

import msgspec

from perdure.clock import Clock
from perdure.contract.ports import WorkerFault
from perdure.contract.registry import CommitListener, Registry
from perdure.host import Host
from perdure.model.events import Event
from perdure.runtime.options import WorkerOptions
from perdure.runtime.spawner import TaskOnlySpawner
from perdure.stores.memory import MemoryRegistry
from perdure.testing.clock import SeededIds, VirtualClock
from perdure.testing.faults import Delay, FaultyRegistry, Plan
from perdure.testing.loop import SimulationLoop, run_simulation
from perdure.transitions.commands import Renew, RenewReceipt

T = TypeVar("T")

CALL_S = 0.001
"""How long every call of a simulated store takes."""


class MortalRegistry(FaultyRegistry):
    """A host's way to the store: every call takes a moment, and the host dies before or after the n-th command."""

    def __init__(self, inner: Registry, clock: Clock, plan: Plan | None = None) -> None:
        super().__init__(inner, plan or (lambda verb, number: Delay(CALL_S)), clock)
        self.commands = 0
        self.dies_before: int | None = None
        self.dies_after: int | None = None
        self.die: Callable[[], None] = lambda: None
        self.dead = False
        self._ends: list[Callable[[], None]] = []

    async def _spoilt(self, verb: str, call: Callable[[], Awaitable[T]], *, commits: bool) -> T:
        if commits:
            self.commands += 1
            await self._die_at(self.dies_before)
        number = self.commands
        answer = await super()._spoilt(verb, call, commits=commits)
        if commits and number == self.dies_after:
            await self._die_at(self.commands)
        if self.dead:
            await asyncio.get_running_loop().create_future()
        return answer

    async def _die_at(self, number: int | None) -> None:
        if self.dead or self.commands == number:
            self.kill()
            await asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        if not self.dead:
            self.dead = True
            for end in self._ends:
                end()
            self.die()

    def renew_from_thread(self, command: Renew) -> ThreadFuture[RenewReceipt]:
        return ThreadFuture() if self.dead else super().renew_from_thread(command)

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        end = super().observe(listener)
        self._ends.append(end)
        return lambda: None if self.dead else end()


class Faults:
    """A sink that keeps the faults."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    async def emit(self, event: Event) -> None:
        return

    def report(self, fault: WorkerFault) -> None:
        self.kinds.append(fault.kind)


class Machine:
    """The registry, the clock, and the hosts that come and go. `define` gives a new host its definitions."""

    def __init__(self, define: Callable[[Host], object], *, parking: float = 2.0, **options: Any) -> None:
        self.clock, self.ids = VirtualClock(), SeededIds()
        self.store = MemoryRegistry(self.clock)
        self.define, self.parking, self.options = define, parking, WorkerOptions(**options)
        self.faults = Faults()
        self.deaths = 0
        self._keep: set[asyncio.Task[Any]] = set()

    def host(self, registry: Registry | None = None, *, name: str = "w", work: bool = True) -> Host:
        host = Host(
            "", name=name, work=work, registry=registry or self.registry(), clock=self.clock, ids=self.ids,
            spawner=TaskOnlySpawner(), parking=self.parking, options=self.options, sink=self.faults,
        )  # fmt: skip
        self.define(host)
        return host

    def registry(self, plan: Plan | None = None) -> MortalRegistry:
        """A host's own way to the store."""
        return MortalRegistry(cast("Registry", self.store), self.clock, plan)

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that outlives the hosts."""
        task = asyncio.get_running_loop().create_task(work)
        self._keep.add(task)
        return task

    def crash_all(self) -> None:
        """Every task but those that are kept, and the test's own, is never stepped again."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        self.deaths += 1
        loop.kill(task for task in loop.pending() if task not in self._keep)

    async def serve_until_dead(self, registry: MortalRegistry, ended: Callable[[], bool]) -> None:
        """Serve with this registry until the host dies, or what is asked for has come about."""
        if ended():
            return
        died = asyncio.Event()

        def die() -> None:
            died.set()
            self.crash_all()

        registry.die = die
        host = self.host(registry)
        serving = asyncio.get_running_loop().create_task(host.serve())
        while not died.is_set() and not ended():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)
        if not died.is_set():
            registry.dies_before = registry.dies_after = None
            host.stop()
            await serving

    async def log(self, id: str) -> list[tuple[str, Any]]:
        """Types and payloads of a process's log."""
        page = await self.store.events_after(id, 0, 10_000)
        return [(event.type, msgspec.json.decode(event.payload)) for event in page.events]

    async def keys(self, id: str, prefix: str) -> list[str]:
        """The keys of the journal's entries of these types, in order."""
        return [payload["key"] for type, payload in await self.log(id) if type.startswith(prefix)]

    async def types(self, id: str) -> list[str]:
        return [type for type, _ in await self.log(id)]

    async def until(self, holds: Callable[[], bool], within_s: float = 120.0) -> None:
        """Let virtual time pass until it holds."""
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)

    def status(self, id: str) -> str:
        return self.store.rows.records[id].status if id in self.store.rows.records else "unknown"

    async def ended(self, id: str) -> object:
        """The outcome, once it has one."""
        await self.until(lambda: self.status(id) in ("completed", "failed", "cancelled", "abandoned"), 3_600.0)
        return self.store.rows.records[id].outcome


def simulate(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0, shuffle: bool = False) -> T:
    return run_simulation(main, seed=seed, shuffle=shuffle)
