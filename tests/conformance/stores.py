"""The stores that the conformance kit is run on, and what each can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from perdure.clock import Clock
from perdure.contract.registry import Registry
from perdure.stores.memory import MemoryRegistry
from perdure.stores.postgres.store import PostgresRegistry
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.testing.conformance import Capability, OpenStore
from tests.postgres.server import schema_of, server_url


@dataclass(frozen=True)
class Store:
    name: str
    capabilities: frozenset[Capability]
    opener: Callable[[Path], OpenStore]


def memory_opener(folder: Path) -> OpenStore:
    async def open_store(clock: Clock, store: str) -> Registry:
        return cast("Registry", MemoryRegistry(clock))

    return open_store


def sqlite_opener(folder: Path) -> OpenStore:
    async def open_store(clock: Clock, store: str) -> Registry:
        return cast("Registry", await SqliteRegistry.open(folder / f"{store}.db", clock=clock))

    return open_store


def postgres_opener(folder: Path) -> OpenStore:
    async def open_store(clock: Clock, store: str) -> Registry:
        return cast("Registry", await PostgresRegistry.open(server_url(), schema_of(folder / store), clock=clock))

    return open_store


STORES = (
    Store("memory", frozenset(), memory_opener),
    Store("sqlite", frozenset({"reopenable", "multi_process", "live_elsewhere"}), sqlite_opener),
    Store("postgres", frozenset({"reopenable", "multi_process"}), postgres_opener),
)
