"""The kill lab: rounds of kills and restarts on one file, then the end of all work, then the checks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from lab.kills.checks import History, breaches, starts_of, takeovers
from lab.kills.database import damage, left_behind, stalled
from lab.kills.ledgers import Ledgers
from lab.kills.plans import OUTSIDE, Plan, Planner
from lab.kills.worker import spawn_worker
from lab.program import Program, ended_within
from perdure.contract.moments import MOMENTS
from perdure.host import Host
from perdure.model.events import Event
from perdure.model.queries import Filter, Page
from perdure.model.record import ProcessRecord

REACH_WITHIN_S = 3.0
"""A worker that has not reached its moment by then is killed from outside."""
FINISH_WITHIN_S = 60.0
LEAST_HITS = 5


class KillReport(msgspec.Struct, frozen=True):
    """What was done, what was found. `breaches` is empty if every promise was kept."""

    rounds: int
    seconds: float
    kills: dict[str, int]
    not_reached: dict[str, int]
    stopped: int
    started: int
    statuses: dict[str, int]
    entries: int
    entered_again: int
    takeovers: dict[str, int]
    lapsed_from_living: int
    left_behind: dict[str, int]
    breaches: tuple[str, ...]


class KillLab:
    """One run in one folder."""

    def __init__(
        self, folder: Path, *, seed: int = 1, workers: int = 2, batch: int = 6, say: Callable[[str], None] = print
    ) -> None:
        self._database, self._say = folder / "work.db", say
        self._ledgers = Ledgers(folder)
        self._planner = Planner(seed, batch)
        self._workers = [self._spawn() for _ in range(workers)]
        self._gone: set[int] = set()
        self._not_reached: Counter[str] = Counter()
        self._stalled: list[str] = []
        self._outside = self._stopped = 0

    def _spawn(self) -> Program:
        return spawn_worker(self._database, self._ledgers)

    def run(self, rounds: int, seconds: float, least_hits: int = LEAST_HITS) -> KillReport:
        """Do the rounds, or as many as fit into that time; then finish all work and check."""
        began_s = time.monotonic()
        done = 0
        try:
            while done < rounds and time.monotonic() - began_s < seconds:
                self._round(done)
                done += 1
                if done % 10 == 0:
                    kills = len(self._ledgers.kills.read()) + self._outside
                    self._say(f"round {done}: {kills} kills, {time.monotonic() - began_s:.1f} s")
            unfinished = asyncio.run(self._finish())
            for slot in range(len(self._workers)):
                self._stop(slot, grace_ms=5_000)
        finally:
            for worker in self._workers:
                if worker.exit_code is None:
                    worker.kill()
        return self._report(done, time.monotonic() - began_s, unfinished, least_hits)

    # --- one round --------------------------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        victims = {slot: self._planner.death() for slot in self._planner.victims(len(self._workers))}
        if len(victims) < len(self._workers) and self._planner.drains():
            slot = next(slot for slot in range(len(self._workers)) if slot not in victims)
            self._stop(slot, grace_ms=0)
            self._workers[slot] = self._spawn()
        for slot, plan in victims.items():
            if plan.moment != OUTSIDE:
                self._workers[slot].tell(do="arm", moment=plan.moment, hits=plan.hits)
        for slot, worker in enumerate(self._workers):
            batch = self._planner.batch(f"r{number}w{slot}", victims.get(slot))
            worker.tell(do="start", what=batch.what)
        self._until_dead({self._workers[slot]: plan for slot, plan in victims.items()})
        for slot in victims:
            self._gone.add(self._workers[slot].pid)
            self._workers[slot] = self._spawn()

    def _until_dead(self, victims: dict[Program, Plan]) -> None:
        began_s = time.monotonic()
        left = {
            program: began_s + (plan.after_ms / 1000 if plan.moment == OUTSIDE else REACH_WITHIN_S)
            for program, plan in victims.items()
        }
        while left:
            for program in ended_within(list(left), min(left.values()) - time.monotonic()):
                del left[program]
            for program, until_s in list(left.items()):
                if time.monotonic() >= until_s:
                    program.kill()
                    assert program.wait(REACH_WITHIN_S)
                    del left[program]
                    self._outside += 1
                    if victims[program].moment != OUTSIDE:
                        self._not_reached[victims[program].moment] += 1
                        self._stalled += stalled(self._database, self._gone_incarnations())

    def _stop(self, slot: int, grace_ms: int) -> None:
        worker = self._workers[slot]
        worker.tell(do="stop", grace_ms=grace_ms)
        if not worker.wait(FINISH_WITHIN_S):
            raise RuntimeError(f"worker {worker.pid} did not stop within {FINISH_WITHIN_S} s")
        if worker.exit_code != 0:
            raise RuntimeError(f"worker {worker.pid} was told to stop and exited with {worker.exit_code}")
        self._gone.add(worker.pid)
        self._stopped += 1

    # --- the end ----------------------------------------------------------------------------------------------

    def _gone_incarnations(self) -> frozenset[str]:
        return frozenset(up.incarnation for up in self._ledgers.workers.read() if up.pid in self._gone)

    async def _finish(self) -> list[str]:
        """Wait for the end of all work; abandon what only an abandon can end. Ids that did not end in time."""
        gone = self._gone_incarnations()
        host = Host(f"sqlite:///{self._database}", work=False)
        async with host:
            live = await _all_records(host, Filter(statuses=("pending", "running", "waiting")))
            self._say(f"{len(live)} processes are left to finish")
            for record in live:
                started = record.state.started
                if record.registration.recovery == "owner_bound" and started and started.owner.incarnation in gone:
                    await host.get_handle(record.id).abandon(by="kill lab", reason="its worker was killed")
            waits = {record.id: asyncio.ensure_future(host.get_handle(record.id).outcome()) for record in live}
            if waits:
                await asyncio.wait(waits.values(), timeout=FINISH_WITHIN_S)
            unfinished = [
                f"{id} has not ended within {FINISH_WITHIN_S} s: {(await host.get_handle(id).explain()).because}"
                for id, wait in waits.items()
                if not wait.done()
            ]
            for wait in waits.values():
                wait.cancel()
            return unfinished

    async def _history(self) -> History:
        host = Host(f"sqlite:///{self._database}", work=False)
        async with host:
            records = {record.id: record for record in await _all_records(host, Filter())}
            logs = {id: await _log(host, id) for id in records}
        ledgers = self._ledgers
        return History(
            ledgers.asked.read(), ledgers.answered.read(), ledgers.entries.read(), records, logs,
            self._gone_incarnations(),
        )  # fmt: skip

    def _report(self, rounds: int, seconds: float, unfinished: list[str], least_hits: int) -> KillReport:
        history = asyncio.run(self._history())
        kills = Counter(killed.moment for killed in self._ledgers.kills.read())
        found = [*self._stalled, *unfinished, *breaches(history), *damage(self._database)]
        found += [
            f"{moment} was hit {kills[moment]} times, fewer than {least_hits}"
            for moment in MOMENTS
            if kills[moment] < least_hits
        ]
        per_process = Counter(entry.process_id for entry in history.entries)
        return KillReport(
            rounds=rounds,
            seconds=round(seconds, 1),
            kills={**{moment: kills[moment] for moment in MOMENTS}, OUTSIDE: self._outside},
            not_reached=dict(self._not_reached),
            stopped=self._stopped,
            started=len(history.records),
            statuses=dict(Counter(record.status for record in history.records.values())),
            entries=len(history.entries),
            entered_again=sum(count - 1 for count in per_process.values()),
            takeovers=dict(takeovers(history.logs)),
            lapsed_from_living=_lapsed_from_living(history),
            left_behind=left_behind(self._database),
            breaches=tuple(found),
        )


async def _all_records(host: Host, filter: Filter) -> list[ProcessRecord]:
    records: list[ProcessRecord] = []
    page = await host.list(filter, Page(1_000))
    records += page.records
    while page.more:
        page = await host.list(filter, Page(1_000, records[-1].id))
        records += page.records
    return records


async def _log(host: Host, process_id: str) -> list[Event]:
    page = await host.registry.events_after(process_id, 0, 10_000)
    assert not page.more
    return list(page.events)


def _lapsed_from_living(history: History) -> int:
    """Takeovers of leases that had lapsed although their worker lived to the end: slow, not wrong."""
    starts = (start for log in history.logs.values() for start in starts_of(log))
    return sum(
        s.takeover is not None and s.takeover.cause == "lapsed" and s.takeover.owner.incarnation not in history.gone
        for s in starts
    )
