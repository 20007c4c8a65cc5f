"""The PostgreSQL lab: load and faults for a time, then peace until all work has ended, then the checks."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from lab.cluster import Cluster
from lab.postgres.checks import Breach, breaches
from lab.postgres.crew import Crew
from lab.postgres.history import History, Stored, changed, read_stored
from lab.postgres.injector import Injector
from lab.postgres.lines import FaultReported, RunBegan, SignalAcknowledged, StartAcknowledged, StepBegan, open_ledger
from lab.postgres.load import Load
from lab.postgres.plans import Fault, Planner
from lab.postgres.proxy import Proxy
from perdure.codec import decode_fact
from perdure.errors import Refused
from perdure.host import Host
from perdure.model.events import ProcessStarted
from perdure.model.queries import Filter, Page
from perdure.model.record import ProcessRecord, Status

WORKERS = 3
RATE = 10.0
LIVE_STATUSES: tuple[Status, ...] = ("pending", "running", "waiting")
DRAINS_WITHIN_S = 60.0
ABANDONED_AFTER_S = 1.0
"""How long the lease of lost owner_bound work must have lapsed before it is given up."""


class PostgresReport(msgspec.Struct, frozen=True):
    """What was done, what was found. `breaches` is empty if every promise was kept."""

    seed: int
    seconds: float
    drained_in_s: float
    faults: dict[str, int]
    started: int
    started_unknowing: int
    signals: int
    ends_seen: int
    statuses: dict[str, int]
    runs: int
    steps: int
    steps_begun_again: int
    takeovers: dict[str, int]
    troubles: dict[str, int]
    never_entered: int
    breaches: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True):
    """Where a run is: for whoever watches."""

    phase: str
    seconds: float
    faults: int
    fault: str
    counts: dict[str, int]
    waiting: int


class PostgresLab:
    """One run in one folder, with a server of its own. `watch` is told ten times a second where it is."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 1,
        workers: int = WORKERS,
        rate: float = RATE,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.folder, self.seed, self.watch = folder, seed, watch
        self._workers, self._rate = workers, rate
        self._ledger_path = folder / "ledger.jsonl"
        self._ledger = open_ledger(self._ledger_path)
        self._phase, self._began_s = "", time.monotonic()
        self.plan: list[tuple[int, Fault]] = []
        self.history = History((), Stored({}, {}))
        self.found: list[Breach] = []

    async def run(self, seconds: float) -> PostgresReport:
        """Load and faults for so long; the rest takes as long as it takes, a minute and a half at most."""
        async with AsyncExitStack() as ends:
            cluster = Cluster({"log_min_messages": "fatal"})
            ends.callback(cluster.remove)
            cluster.start()
            ways = [Proxy(cluster.port) for _ in range(self._workers + 1)]
            for way in ways:
                await way.open()
                ends.push_async_callback(way.close)
            urls = [cluster.url.replace(f":{cluster.port}/", f":{way.port}/") for way in ways]
            async with Host(cluster.url, work=False):
                pass  # the schema is made before anybody is struck
            crew = Crew(urls, self._ledger_path)
            ends.push_async_callback(crew.kill_all)
            load = Load(urls[-1], self._ledger, self.seed, self._rate)
            await load.open()
            ends.push_async_callback(load.close)
            await asyncio.gather(*(crew.start(slot) for slot in range(self._workers)))
            injector = Injector(Planner(self.seed, self._workers).faults(), cluster, ways, crew, self._ledger)
            self.plan = injector.done
            watching = asyncio.ensure_future(self._tell(load))
            ends.callback(watching.cancel)
            self._phase, self._began_s = "load and faults", time.monotonic()
            await self._struck(load, injector, seconds)
            self._phase, drains_s = "draining", time.monotonic()
            unfinished = await self._drain(cluster.url, load)
            if unfinished:
                crew.tell_where_they_stand()
            drained_in_s = time.monotonic() - drains_s
            await crew.stop()
            self._phase = "checking"
            await self._read(cluster, injector)
        self.found += [*unfinished, *map(Breach, (*load.failures, *crew.ended_by_themselves)), *breaches(self.history)]
        return self._report(load, seconds, drained_in_s)

    async def _struck(self, load: Load, injector: Injector, seconds: float) -> None:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        async with asyncio.TaskGroup() as both:
            both.create_task(load.run_until(over))
            both.create_task(injector.strike_until(over))

    async def _drain(self, url: str, load: Load) -> list[Breach]:
        """Wait for the end of all work, and give up what only that can end. What has not ended in time."""
        async with Host(url, work=False) as host:
            try:
                async with asyncio.timeout(DRAINS_WITHIN_S):
                    while (live := await _live(host)) or load.waiting or await _unsettled(host):
                        await _give_up_lost(host, live)
                        await asyncio.sleep(0.3)
                    return []
            except TimeoutError:
                left = [Breach(f"{load.waiting} starts, signals or waits were not answered")] if load.waiting else []
                for record in await _live(host):
                    because = (await host.get_handle(record.id).explain()).because
                    left.append(Breach(f"has not ended within {DRAINS_WITHIN_S} s: {because}", record.id))
                return left

    async def _read(self, cluster: Cluster, injector: Injector) -> None:
        """Read all; crash the server once more, and read the same."""
        stored = []
        for crash in (False, True):
            if crash:
                await injector.crash()
            async with Host(cluster.url, work=False) as host:
                stored.append(await read_stored(host))
        self.history = History(self._ledger.read(), stored[0])
        self.found += [Breach(what, id) for id, what in changed(*stored)]

    async def _tell(self, load: Load) -> None:
        while True:
            fault = self.plan[-1][1] if self.plan else None
            shown = "" if fault is None else fault.kind if fault.slot is None else f"{fault.kind} {fault.slot}"
            seconds = time.monotonic() - self._began_s
            self.watch(Progress(self._phase, seconds, len(self.plan), shown, dict(load.counts), load.waiting))
            await asyncio.sleep(0.1)

    def _report(self, load: Load, seconds: float, drained_in_s: float) -> PostgresReport:
        history, records = self.history, self.history.stored.records
        facts = (decode_fact(event) for log in history.stored.logs.values() for event in log)
        starts = [fact for fact in facts if isinstance(fact, ProcessStarted)]
        steps = history.of(StepBegan)
        troubles = [f"{fault.kind}: {_in_general(fault.message)}" for fault in history.of(FaultReported)]
        return PostgresReport(
            seed=self.seed,
            seconds=seconds,
            drained_in_s=round(drained_in_s, 1),
            faults=dict(Counter(fault.kind for _, fault in self.plan)),
            started=len(history.of(StartAcknowledged)),
            started_unknowing=load.counts["given up"],
            signals=len(history.of(SignalAcknowledged)),
            ends_seen=load.counts["ends seen"],
            statuses=dict(Counter(f"{r.registration.definition.name} {r.status}" for r in records.values())),
            runs=len(history.of(RunBegan)),
            steps=len(steps),
            steps_begun_again=len(steps) - len({(step.process_id, step.step) for step in steps}),
            takeovers=dict(Counter(start.takeover.cause for start in starts if start.takeover is not None)),
            troubles=dict(Counter(troubles)),
            never_entered=sum(r.is_terminal and id not in history.by_process for id, r in records.items()),
            breaches=tuple(map(str, self.found)),
        )

    def story_of(self, process_id: str) -> list[str]:
        """All that is known of one process: its log, and the lines that name it."""
        log = self.history.stored.logs.get(process_id, ())
        told = [f"event {e.sequence} at {e.at_ms} {e.type} {bytes(e.payload).decode()}" for e in log]
        return [*told, *(msgspec.json.encode(line).decode() for line in self.history.about(process_id))]


def _in_general(message: str) -> str:
    """Without the names and numbers of one case."""
    return re.sub(r"'[^']*'|\d+", "…", message)


async def _live(host: Host) -> list[ProcessRecord]:
    return list((await host.list(Filter(statuses=LIVE_STATUSES), Page(1_000))).records)


async def _unsettled(host: Host) -> bool:
    """Whether what follows from an end is still to be done."""
    due: Any = await host.registry.due_for_settling(host.registry.now(), (), 1)
    return bool(due)


async def _give_up_lost(host: Host, live: list[ProcessRecord]) -> None:
    """Ask for the end of owner_bound work whose owner has let its lease lapse."""
    for record in live:
        if record.registration.recovery != "owner_bound" or record.state.started is None:
            continue
        lease = await host.registry.get_lease(record.id)
        lapsed_ms = host.registry.now().wall_ms - ABANDONED_AFTER_S * 1_000
        is_lost = lease is None or lease.released or lease.expires_at_ms < lapsed_ms
        if is_lost and record.state.abandon_request is None:
            try:
                await host.get_handle(record.id).abandon(by="the lab", reason="its owner has let its lease lapse")
            except Refused:  # it has ended just now
                continue
