"""The raw limits: plain apsw in one thread, prepared rows, the library's own tables, the same durability.

`job` is the exception: the smallest table that one could queue work in, as a yardstick between machines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from bench.subject import Row, Templates
from perdure.stores.sqlite.migrations import migrations

JOB_BATCH = 100
JOB_BODY = '{"kind":"thumbnail","source":"' + "x" * 170 + '"}'


def open_raw(path: Path, *, library_schema: bool = True) -> apsw.Connection:
    """A new file in WAL mode with synchronous=FULL."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    if library_schema:
        for _, sql in migrations():
            connection.execute(sql)
    return connection


def insert_sql(table: str, row: Row) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"


def registered(templates: Templates, count: int, first: int = 1) -> tuple[list[Any], list[Any]]:
    """Rows of `count` pending processes and of their registrations, ready to be bound."""
    processes, registrations = [], []
    for key in range(first, first + count):
        name = _id(templates, key)
        processes.append(tuple({**templates.pending, "row": key, "id": name, "change": key}.values()))
        body = templates.registration["body"].replace(templates.id, name)
        registrations.append(tuple({**templates.registration, "row": key, "body": body}.values()))
    return processes, registrations


def _id(templates: Templates, key: int) -> str:
    """An id as long as the library's, in the same order as the keys."""
    return f"{templates.id[:-12]}{key:012x}"


def insert_rates(path: Path, templates: Templates, n: int, batch: int) -> float:
    """Rows/s of processes with their registrations, `batch` of them per transaction."""
    connection = open_raw(path)
    processes, registrations = registered(templates, n)
    into_processes = insert_sql("processes", templates.pending)
    into_registrations = insert_sql("registrations", templates.registration)
    began = time.perf_counter()
    for at in range(0, n, batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(into_processes, processes[at : at + batch])
        connection.executemany(into_registrations, registrations[at : at + batch])
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began
    connection.close()
    return n / took_s


def drain_rates(path: Path, templates: Templates, n: int, batch: int) -> float:
    """Processes/s, claimed in one transaction per batch and completed in a second one."""
    connection = open_raw(path)
    processes, registrations = registered(templates, n)
    with connection:
        connection.executemany(insert_sql("processes", templates.pending), processes)
        connection.executemany(insert_sql("registrations", templates.registration), registrations)
    batches = list(_drain_batches(templates, n, batch))
    moved = [name for name in templates.pending if name not in UNMOVED]
    update = f"UPDATE processes SET {', '.join(f'{name} = ?' for name in moved)} WHERE row = ?"
    into_events = insert_sql("events", templates.started_event)
    into_leases = insert_sql("leases", templates.lease)
    began = time.perf_counter()
    for running, started, leases, completed, ended, keys in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(update, running)
        connection.executemany(into_events, started)
        connection.executemany(into_leases, leases)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(update, completed)
        connection.executemany(into_events, ended)
        connection.executemany("DELETE FROM leases WHERE row = ?", keys)
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began
    connection.close()
    return n / took_s


UNMOVED = ("row", "id", "lane", "priority", "parent")
"""Columns of `processes` that a transition doesn't write."""


def _drain_batches(templates: Templates, n: int, batch: int) -> Iterator[Sequence[Any]]:
    change = n

    def states(template: Row, keys: Sequence[int]) -> list[Any]:
        nonlocal change
        rows = []
        for key in keys:
            change += 1
            moved = {**template, "change": change}
            rows.append((*(value for name, value in moved.items() if name not in UNMOVED), key))
        return rows

    def keyed(template: Row, keys: Sequence[int]) -> list[Any]:
        return [tuple({**template, "row": key}.values()) for key in keys]

    for at in range(1, n + 1, batch):
        keys = range(at, min(n + 1, at + batch))
        yield (
            states(templates.running, keys), keyed(templates.started_event, keys), keyed(templates.lease, keys),
            states(templates.completed, keys), keyed(templates.completed_event, keys), [(key,) for key in keys],
        )  # fmt: skip


def job_rates(path: Path, n: int, batch: int = JOB_BATCH) -> float:
    """Jobs/s of a table with one index: claim a batch by UPDATE … RETURNING, complete it by executemany."""
    connection = open_raw(path, library_schema=False)
    connection.execute(
        "CREATE TABLE job (number INTEGER PRIMARY KEY, name TEXT, state INTEGER, body TEXT, due REAL);"
        "CREATE INDEX job_due ON job (state, number)"
    )
    with connection:
        rows = [(f"job-{number}", JOB_BODY) for number in range(n)]
        connection.executemany("INSERT INTO job (name, state, body, due) VALUES (?, 0, ?, 0)", rows)
    claim = (
        "UPDATE job SET state = 1, due = ? WHERE number IN (SELECT number FROM job WHERE state = 0 ORDER BY number "
        "LIMIT ?) RETURNING number, body"
    )
    began, done = time.perf_counter(), 0
    while claimed := connection.execute(claim, (1.0, batch)).fetchall():
        connection.execute("BEGIN IMMEDIATE")
        ends = [('{"ok":true}', number) for number, _ in claimed]
        connection.executemany("UPDATE job SET state = 2, body = ? WHERE number = ? AND state = 1", ends)
        connection.execute("COMMIT")
        done += len(claimed)
    took_s = time.perf_counter() - began
    connection.close()
    return done / took_s


class OneCommit:
    """One durable row at a time, in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = open_raw(path, library_schema=False)
        self._connection.execute("CREATE TABLE note (number INTEGER PRIMARY KEY, body TEXT)")

    def seconds(self) -> float:
        began = time.perf_counter()
        self._connection.execute("INSERT INTO note (body) VALUES (?)", (JOB_BODY,))
        return time.perf_counter() - began

    def close(self) -> None:
        self._connection.close()
