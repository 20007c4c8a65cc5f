"""What a claim costs: each of its statements enters an index, and what it visits doesn't grow with the file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from perdure.clock import Moment, SystemClock
from perdure.model.leases import DeathProof, Owner
from perdure.model.registration import NULL, Definition, Registration
from perdure.stores.sqlite.migrations import migrations
from perdure.stores.sqlite.queries import load_queries
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import AppendEvent, ClaimNext, ClaimReceipt, Register

WRITE = load_queries("write.sql")
HOUR_MS = 3_600_000
KNOWN, UNKNOWN = Definition("python", "known"), Definition("python", "unknown")


# --- plans -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connection() -> Iterator[apsw.Connection]:
    """A database with the schema and nothing else: plans don't depend on what is in it."""
    connection = apsw.Connection(":memory:")
    for _, sql in migrations():
        connection.execute(sql)
    yield connection
    connection.close()


def plan(connection: apsw.Connection, name: str) -> list[str]:
    cursor = connection.cursor()
    bindings = dict.fromkeys(("ids", "rows", "names", "lane", "lanes", "now", "boot_now", "limit", "dead", "claims"))
    return [str(row[3]) for row in cursor.execute(f"EXPLAIN QUERY PLAN {WRITE[name]}", bindings)]


@pytest.mark.parametrize(
    ("name", "entered"),
    [
        ("ready", "SEARCH p USING COVERING INDEX processes_ready (lane=? AND priority=? AND ready_at<?)"),
        ("lapsed", "SEARCH l USING COVERING INDEX leases_lapse (lane=? AND priority=? AND boot_expires_at<?)"),
        ("void", "SEARCH l USING INDEX leases_claim (incarnation=?)"),
        ("leased_by_claims", "SEARCH l USING COVERING INDEX leases_claim (incarnation=? AND claim_id=?)"),
        ("load", "SEARCH p USING INDEX sqlite_autoindex_processes_1 (id=?)"),
    ],
)
def test_a_claims_statement_enters_its_index_and_scans_and_sorts_no_table(
    connection: apsw.Connection, name: str, entered: str
) -> None:
    steps = plan(connection, name)
    assert entered in steps
    tables = {"p", "l", "e", "processes", "leases", "events"}
    assert [step for step in steps if step.startswith("SCAN") and step.split()[1] in tables] == []
    assert [step for step in steps if "TEMP B-TREE" in step] == []


# --- what is visited -------------------------------------------------------------------------------------------


class SteppedClock(SystemClock):
    """Runs ahead of the system's as told."""

    ahead_ms = 0

    def now(self) -> Moment:
        now = super().now()
        return Moment(now.wall_ms + self.ahead_ms, now.boot_ms + self.ahead_ms, now.boot_id)


class Population(msgspec.Struct, frozen=True):
    """How many rows of which kind; the rest is ready."""

    unknown: int
    not_due: int
    leased: int
    lapsed: int
    ready: int


LARGE = Population(unknown=10_000, not_due=10_000, leased=9_000, lapsed=100, ready=900)
SMALL = Population(unknown=100, not_due=100, leased=90, lapsed=10, ready=10)


def registrations(kind: str, count: int, definition: Definition, delay_ms: int = 0) -> list[Register]:
    return [
        Register(
            process_id=f"{kind}-{number}",
            registration=Registration(
                id=f"{kind}-{number}", definition=definition, recovery="rerunnable", delay_ms=delay_ms
            ),
        )
        for number in range(count)
    ]


def claim(name: str, limit: int, ttl_ms: int, proofs: tuple[DeathProof, ...] = ()) -> ClaimNext:
    return ClaimNext(
        claim_id=name, token=name, owner=Owner(name, name), limit=limit, ttl_ms=ttl_ms, definitions=(KNOWN,),
        proofs=proofs,
    )  # fmt: skip


async def populate(path: Path, population: Population, clock: SteppedClock) -> SqliteRegistry:
    registry = await SqliteRegistry.open(path, clock=clock)
    await registry.execute_all(registrations("unknown", population.unknown, UNKNOWN))
    await registry.execute_all(registrations("later", population.not_due, KNOWN, delay_ms=HOUR_MS))
    await registry.execute_all(registrations("leased", population.leased, KNOWN))
    leased: ClaimReceipt = await registry.execute(claim("holder", population.leased, 2 * HOUR_MS))
    await registry.execute_all(registrations("lapsed", population.lapsed, KNOWN))
    lapsed: ClaimReceipt = await registry.execute(claim("gone", population.lapsed, 1_000))
    await registry.execute_all(registrations("ready", population.ready, KNOWN))
    assert (len(leased.claimed), len(lapsed.claimed)) == (population.leased, population.lapsed)
    clock.ahead_ms = 2_000
    return registry


class Visits:
    """The steps of SQLite's machine that statements took, by their name in write.sql."""

    def __init__(self, connection: apsw.Connection, more: dict[str, str] | None = None) -> None:
        self.steps: dict[str, int] = {}
        self._names = {sql: name for name, sql in WRITE.items()} | (more or {})
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._profiled)

    def _profiled(self, event: dict[str, Any]) -> None:
        name = self._names.get(event["sql"])
        if name is not None:
            self.steps[name] = event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]


async def visits_of_a_claim_of_one(path: Path, population: Population) -> tuple[str, dict[str, int]]:
    registry = await populate(path, population, SteppedClock())
    visits = Visits(registry._connections[0])
    proof = DeathProof("holder", "pid_gone", "for this test")
    receipt: ClaimReceipt = await registry.execute(claim("claimer", 1, HOUR_MS, proofs=(proof,)))
    await registry.close()
    return receipt.claimed[0].record.id.partition("-")[0], visits.steps


def test_a_claim_visits_no_more_rows_in_a_file_a_hundred_times_as_large(tmp_path: Path) -> None:
    small_kind, small = asyncio.run(visits_of_a_claim_of_one(tmp_path / "small.db", SMALL))
    large_kind, large = asyncio.run(visits_of_a_claim_of_one(tmp_path / "large.db", LARGE))
    assert small_kind == large_kind
    assert small_kind in ("leased", "lapsed")  # what a lost owner had goes before the backlog
    assert {"ready", "lapsed", "void"} <= set(large)
    for name in ("ready", "lapsed", "void"):
        assert large[name] <= small[name] + 20, f"{name}: {small[name]} steps in the small file, {large[name]} here"
        assert large[name] <= 500


def test_visiting_a_table_without_its_index_would_be_seen(tmp_path: Path) -> None:
    async def story() -> dict[str, int]:
        registry = await populate(tmp_path / "work.db", LARGE, SteppedClock())
        unindexed = WRITE["ready"].replace("INDEXED BY processes_ready", "NOT INDEXED")
        visits = Visits(registry._connections[0], {unindexed: "unindexed"})
        bindings = {"lane": "default|python/known@1", "now": registry.now().wall_ms, "limit": 1}
        await asyncio.wrap_future(registry._writer.call(lambda c: c.execute(unindexed, bindings).fetchall()))
        await registry.close()
        return visits.steps

    assert asyncio.run(story())["unindexed"] > 30_000


def test_looking_for_an_operation_visits_no_more_events_in_a_log_a_hundred_times_as_long(tmp_path: Path) -> None:
    async def visits_after(events: int) -> int:
        registry = await SqliteRegistry.open(tmp_path / f"{events}.db")
        await registry.execute_all(registrations("p", 1, KNOWN))
        await registry.execute_all([tell(f"o{number}") for number in range(events)])
        visits = Visits(registry._connections[0])
        await registry.execute(tell("another"))
        await registry.close()
        return visits.steps["find_events"]

    def tell(operation: str) -> AppendEvent:
        return AppendEvent(process_id="p-0", type="told", payload=NULL, operation_id=operation, replay_key=operation)

    assert asyncio.run(visits_after(1_000)) <= asyncio.run(visits_after(10)) + 20
