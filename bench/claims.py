"""Claiming one row among very many: what isn't claimable must not be visited, however much of it there is."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from bench.measure import Plan, Target, emit, median, ratio, scratch
from bench.raw import open_raw
from bench.subject import OWNER, Row, Templates, take_templates
from perdure.clock import SystemClock
from perdure.contract.registry import Registry
from perdure.hosting.urls import open_registry
from perdure.model.outcomes import Completed
from perdure.model.registration import Definition
from perdure.stores.sqlite.connection import APPLICATION_ID
from perdure.stores.sqlite.migrations import migrations
from perdure.transitions.commands import ClaimNext, ClaimReceipt, Complete, LeaseRight

ROWS_PER_N = 100
FEW_ROWS = 1_000
LAPSED = 100
TIMED, TRACED = 60, 20
"""Claims; together fewer than the rows that have lapsed, so each finds one of them first."""
RATIO = Target("at most", 2.0)
HOUR_MS = 3_600_000


def fill(path: Path, templates: Templates, total: int) -> None:
    """A file as the library would have left it: of `total` live rows 30 % are of a definition that the claimer doesn't
    know and due earlier than all others, 30 % aren't due, 30 % are leased, 100 have lapsed, the rest is ready."""
    connection = open_raw(path)
    connection.pragma("synchronous", 0)
    third, ready_ms = total * 3 // 10, templates.pending["ready_at"]
    unknown = _due_at(templates.pending, ready_ms - HOUR_MS)
    unknown["lane"] = unknown["lane"].replace("noop", "other")
    groups = (
        (third, unknown, None),
        (third, _due_at(templates.pending, ready_ms + 24 * HOUR_MS), None),
        (third, templates.running, templates.lease),
        (LAPSED, templates.running, {**templates.lease, "boot_expires_at": 1, "expires_at": ready_ms - HOUR_MS}),
        (total - 3 * third - LAPSED, templates.pending, None),
    )
    first = 1
    with connection:
        for count, process, lease in groups:
            body = templates.registration["body"]
            name = f"printf('{templates.id[:-12]}%012x', i)"
            if "other" in process["lane"]:
                body = body.replace('"noop"', '"other"')
            _insert(connection, "processes", process, first, count, row="i", change="i", id=name)
            renamed = f"replace(:body, '{templates.id}', {name})"
            _insert(connection, "registrations", {**templates.registration, "body": body}, first, count, row="i",
                    body=renamed)  # fmt: skip
            if lease is not None:
                _insert(connection, "leases", {**lease, "incarnation": "another-of-22-letters"}, first, count, row="i")
                _insert(connection, "events", templates.started_event, first, count, row="i")
            first += count
        connection.execute("UPDATE store SET change = ?", (total,))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", migrations()[-1][0])
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def _due_at(pending: Row, at_ms: int) -> Row:
    """The pending row, due at another time."""
    state = pending["state"].replace(f'"due_at_ms":{pending["ready_at"]}', f'"due_at_ms":{at_ms}')
    assert state != pending["state"]
    return {**pending, "ready_at": at_ms, "state": state}


def _insert(connection: apsw.Connection, table: str, like: Row, first: int, count: int, /, **computed: str) -> None:
    """Insert `count` rows like this one; `computed` columns are SQL over the row's number `i`."""
    columns = ", ".join(like)
    values = ", ".join(computed.get(name, f":{name}") for name in like)
    counter = "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :past)"
    connection.execute(
        f"{counter} INSERT INTO {table} ({columns}) SELECT {values} FROM n WHERE :past > :first",
        {**like, "first": first, "past": first + count},
    )


def _claim(number: int) -> ClaimNext:
    return ClaimNext(
        claim_id=f"claim-{number}", token=f"token-{number}", owner=OWNER, limit=1, ttl_ms=HOUR_MS,
        definitions=(Definition("python", "noop", 1),),
    )  # fmt: skip


class Steps:
    """Sums up what SQLite's virtual machine did, on every connection that is opened while it is hooked in."""

    def __init__(self) -> None:
        self.vm_steps = 0
        self.rows_scanned = 0

    def _profiled(self, statement: dict[str, Any]) -> None:
        counters = statement["stmt_status"]
        self.vm_steps += counters["SQLITE_STMTSTATUS_VM_STEP"]
        self.rows_scanned += counters["SQLITE_STMTSTATUS_FULLSCAN_STEP"]

    def _opened(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._profiled)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        apsw.connection_hooks.append(self._opened)
        try:
            yield
        finally:
            apsw.connection_hooks.remove(self._opened)


async def _claim_one(registry: Registry, number: int) -> tuple[float, ClaimReceipt]:
    command = _claim(number)
    began = time.perf_counter()
    receipt: ClaimReceipt = await registry.execute(command)
    return time.perf_counter() - began, receipt


async def _end(registry: Registry, receipt: ClaimReceipt) -> None:
    """The claimed row is terminal from here on, so that the next claim finds another one."""
    (claimed,) = receipt.claimed
    right = LeaseRight(claimed.lease.key)
    await registry.execute(Complete(process_id=claimed.record.id, outcome=Completed(), authority=right))


async def in_turns(paths: Sequence[Path]) -> list[list[float]]:
    """Seconds of many claims of one row, in each file by turns."""
    registries = [await open_registry(f"sqlite:///{path}", SystemClock()) for path in paths]
    taken: list[list[float]] = [[] for _ in paths]
    for number in range(TIMED):
        for registry, found in zip(registries, taken, strict=True):
            took_s, receipt = await _claim_one(registry, number)
            found.append(took_s)
            await _end(registry, receipt)
    for registry in registries:
        await registry.close()
    return taken


async def count_steps(path: Path) -> tuple[float, float]:
    """What one claim of one row makes SQLite do: steps of its virtual machine, and rows met without an index."""
    steps = Steps()
    with steps.hooked():
        registry = await open_registry(f"sqlite:///{path}", SystemClock())
    vm_steps, rows_scanned = [], []
    for number in range(TIMED, TIMED + TRACED):
        steps.vm_steps = steps.rows_scanned = 0
        _, receipt = await _claim_one(registry, number)
        vm_steps.append(float(steps.vm_steps))
        rows_scanned.append(float(steps.rows_scanned))
        await _end(registry, receipt)
    await registry.close()
    return median(vm_steps), median(rows_scanned)


def measure(plan: Plan) -> None:
    sizes = (FEW_ROWS, max(plan.n * ROWS_PER_N, 2 * FEW_ROWS))
    seconds: list[list[float]] = [[], []]
    steps: list[list[float]] = [[], []]
    scanned: list[list[float]] = [[], []]
    with scratch(plan) as folder:
        templates = asyncio.run(take_templates(folder))
        for size in sizes:
            fill(folder / f"{size}.db", templates, size)
        for rep in range(plan.reps):
            paths = [folder / f"rep-{rep}-{size}.db" for size in sizes]
            for size, path in zip(sizes, paths, strict=True):
                shutil.copyfile(folder / f"{size}.db", path)
            for found, taken in zip(seconds, asyncio.run(in_turns(paths)), strict=True):
                found.append(median(taken))
            for index, path in enumerate(paths):
                vm_steps, rows_scanned = asyncio.run(count_steps(path))
                steps[index].append(vm_steps)
                scanned[index].append(rows_scanned)
                path.unlink()
    for index, size in enumerate(sizes):
        many = index == 1
        emit(f"claim.one_of_{size}_rows", seconds[index], "s", n=size, batch=1,
             **(ratio(seconds[1], seconds[0], RATIO) if many else {}))  # fmt: skip
        emit(f"claim.vm_steps_of_{size}_rows", steps[index], "VM steps", n=size, batch=1,
             rows_scanned=median(scanned[index]), **(ratio(steps[1], steps[0], RATIO) if many else {}))  # fmt: skip
