"""What is found when a database is looked at: one row of each statement in inspect.sql. Ages are in milliseconds, a
`horizon` in transactions that have begun since; None is what this role may not see."""

from __future__ import annotations

import msgspec


class ServerReport(msgspec.Struct, frozen=True):
    version: str
    version_num: int
    in_recovery: bool
    role: str
    sees_all: bool
    has_schema: bool


class Setting(msgspec.Struct, frozen=True):
    name: str
    value: str


class ConnectionsReport(msgspec.Struct, frozen=True):
    used: int
    of_hosts: int
    most: int


class Right(msgspec.Struct, frozen=True):
    kind: str
    object: str
    privilege: str


class OpenTransaction(msgspec.Struct, frozen=True):
    pid: int
    role: str
    application: str
    state: str
    age_ms: int | None
    statement_ms: int | None
    horizon: int


class PreparedTransaction(msgspec.Struct, frozen=True):
    gid: str
    role: str
    age_ms: int
    horizon: int


class Slot(msgspec.Struct, frozen=True):
    name: str
    active: bool
    horizon: int
    wal_status: str
    kept_bytes: int


class WaitingLock(msgspec.Struct, frozen=True):
    pid: int
    what: str
    mode: str
    waited_ms: int
    blockers: list[int]


class TableReport(msgspec.Struct, frozen=True):
    name: str
    place: str
    live: int
    dead: int
    updated: int
    updated_hot: int
    vacuumed_ms: int | None
    autovacuum: bool
    fillfactor: int
    frozen_age: int
    heap_bytes: int
    total_bytes: int
    width: float | None
    due_dead: int


class IndexReport(msgspec.Struct, frozen=True):
    name: str
    place: str
    table_name: str
    valid: bool
    bytes: int
    used: int
    partial: bool
    columns: list[str]


class Ages(msgspec.Struct, frozen=True):
    transactions: int
    multixacts: int
    transactions_due: int
    multixacts_due: int


class StatusCount(msgspec.Struct, frozen=True):
    status: str
    count: int


class PostedReport(msgspec.Struct, frozen=True):
    count: int
    first: list[str] | None
