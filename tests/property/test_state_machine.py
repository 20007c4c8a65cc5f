"""Random lives of a few processes on every store at once: they answer alike, and each record is the fold of its log."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from perdure.codec import refold
from perdure.contract.registry import Registry
from perdure.errors import PerdureError, UnknownProcess
from perdure.model.leases import LeaseKey
from perdure.model.queries import Filter, Page
from perdure.stores.memory import MemoryRegistry
from perdure.stores.postgres.store import PostgresRegistry
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.testing.clock import VirtualClock
from perdure.transitions.commands import AnyReceipt, ClaimReceipt, Command, Receipt, Renew, RowCommand
from perdure.transitions.leases import has_expired
from perdure.transitions.projection import lane
from perdure.transitions.recovery import deadline_passed
from tests.postgres.server import schema_of, server_url
from tests.property.commands import DEFINITIONS, IDS, OWNERS, TTL_MS, claims, row_commands

T = TypeVar("T")

LANES = [lane("default", definition) for definition in DEFINITIONS]
ENDS = ("process.completed", "process.failed", "process.cancelled", "process.abandoned")

Answer = AnyReceipt | PerdureError


class SeveralStores(RuleBasedStateMachine):
    """Sends each command to all stores, and keeps every lease that was ever granted, so that most become stale.

    Memory is one of them; `files` are the others, which can be opened again.
    """

    files: tuple[str, ...] = ("sqlite",)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        self.leases: list[LeaseKey] = []
        self.fences: dict[str, int] = {}
        self.counted = 0
        self.sent_since_opening = False

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        memory = MemoryRegistry(self.clock)
        self.memory, self.rows = cast("Registry", memory), memory.rows
        self.others = [self.do(self._open(kind)) for kind in self.files]

    async def _open(self, kind: str) -> Registry:
        path = Path(self.folder.name) / "all.db"
        if kind == "sqlite":
            return cast("Registry", await SqliteRegistry.open(path, clock=self.clock))
        return cast("Registry", await PostgresRegistry.open(server_url(), schema_of(path), clock=self.clock))

    @property
    def stores(self) -> list[Registry]:
        return [self.memory, *self.others]

    def teardown(self) -> None:
        if hasattr(self, "others"):
            for registry in self.stores:
                self.do(registry.close())
        self.loop.close()
        self.folder.cleanup()

    # --- what may happen --------------------------------------------------------------------------------------

    @rule(data=st.data())
    def change_a_process(self, data: st.DataObject) -> None:
        self.send([data.draw(row_commands(self.leases, self.clock.now().wall_ms), label="command")])

    @rule(data=st.data())
    def change_several_at_once(self, data: st.DataObject) -> None:
        command = row_commands(self.leases, self.clock.now().wall_ms)
        batch: list[Command] = list(data.draw(st.lists(command, min_size=2, max_size=4), label="commands"))
        batch += data.draw(st.lists(claims(self.name(), [10]), max_size=2), label="claims")
        self.send(batch)

    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        """Which of several lapsed rows a small claim takes is the store's choice, and how far it looks on when rows are
        ended instead; of all other rows it is not."""
        now = self.clock.now()
        void = [lease for lease in self.rows.leases.values() if has_expired(lease, now) or lease.owner == OWNERS[1]]
        late = [record for record in self.rows.records.values() if deadline_passed(record, now)]
        is_clear = len(void) < 2 and not late
        self.send([data.draw(claims(self.name(), [1, 2, 10] if is_clear else [10]), label="claim")])

    @rule(data=st.data(), ttl_ms=st.sampled_from([TTL_MS, 1, 60_000]))
    def renew(self, data: st.DataObject, ttl_ms: int) -> None:
        keys = data.draw(st.lists(st.sampled_from(self.leases), max_size=4)) if self.leases else []
        self.send([Renew(keys=tuple(keys), ttl_ms=ttl_ms)])

    @rule(ms=st.sampled_from([1, 999, 1_000, TTL_MS - 1, TTL_MS, 60_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms / 1000)

    @rule(ms=st.sampled_from([-3_600_000, 3_600_000]))
    def the_wall_clock_is_set(self, ms: int) -> None:
        self.clock.step_wall(ms)

    @precondition(lambda self: self.sent_since_opening)
    @rule()
    def what_can_be_is_opened_again(self) -> None:
        self.sent_since_opening = False
        for registry in self.others:
            self.do(registry.close())
        self.others = [self.do(self._open(kind)) for kind in self.files]
        self.compare_all()

    def name(self) -> str:
        self.counted += 1
        return f"n-{self.counted}"

    # --- what must hold ---------------------------------------------------------------------------------------

    def send(self, commands: Sequence[Command]) -> None:
        self.sent_since_opening = True
        first, *others = [self.do(_awaited(registry.execute_together(commands))) for registry in self.stores]
        for kind, answers in zip(self.files, others, strict=True):
            for command, mine, theirs in zip(commands, first, answers, strict=True):
                assert said(mine) == said(theirs), f"what {kind} answers to {command}"
        for answer in first:
            if isinstance(answer, ClaimReceipt):
                self.leases += [claimed.lease.key for claimed in answer.claimed]
            elif isinstance(answer, Receipt) and answer.lease is not None:
                self.leases.append(answer.lease.key)
        self.compare({c.process_id for c in commands if isinstance(c, RowCommand)} or set(IDS))
        if any(not isinstance(command, RowCommand) for command in commands):
            self.compare_all()

    def compare_all(self) -> None:
        self.compare(set(IDS))
        now = self.clock.now()
        for question in (
            lambda r: r.list(page=Page(100)),
            lambda r: r.count(Filter(statuses=("pending", "waiting"))),
            lambda r: r.next_due_at_ms(LANES, now),
            lambda r: r.due_for_settling(now, (), 100),
            lambda r: r.due_for_settling(now, (OWNERS[0].incarnation,), 100),
            lambda r: r.ended_among(IDS),
        ):
            mine, *theirs = [encoded(self.do(question(r))) for r in self.stores]  # type: ignore[no-untyped-call]
            assert theirs == [mine] * len(theirs)

    def compare(self, ids: set[str]) -> None:
        for id in sorted(ids):
            mine, *theirs = [self.do(standing(registry, id)) for registry in self.stores]
            assert theirs == [mine] * len(theirs), f"what stands of {id}"
            for registry in self.stores:
                self.do(self.check(registry, id))

    async def check(self, registry: Registry, id: str) -> None:
        """The record is the fold of the log, the log has no gaps and one end at most, and fences never go down."""
        try:
            record = await registry.get(id)
        except UnknownProcess:
            return
        events = (await registry.events_after(id, 0)).events
        folded = refold(record.registration, record.state.created_at_ms, events)
        for field in record.state.__struct_fields__:
            assert getattr(record.state, field) == getattr(folded.state, field), f"{field} of {id}"
        assert folded.registration == record.registration
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert sum(event.type in ENDS for event in events) == int(record.is_terminal)
        lease = await registry.get_lease(id)
        fence = max(record.state.fence, lease.fence if lease is not None else 0)
        assert fence >= self.fences.get(id, 0)
        self.fences[id] = fence


async def _awaited(work: Awaitable[T]) -> T:
    return await work


async def standing(registry: Registry, id: str) -> bytes:
    """All that can be read of one process, as text."""
    try:
        record = await registry.get(id)
    except UnknownProcess:
        return b"unknown"
    recent = await registry.recent_events(id, 3)
    return encoded((record, await registry.get_lease(id), await registry.events_after(id, 0), recent.events))


def said(answer: Answer) -> tuple[str, bytes]:
    """An answer as all stores must give it: not how many rows a claim has looked at."""
    if isinstance(answer, PerdureError):
        return type(answer).__name__, repr(sorted(answer.fields.items(), key=str)).encode()
    if isinstance(answer, ClaimReceipt):
        answer = msgspec.structs.replace(answer, scanned=0)
    return type(answer).__name__, encoded(answer)


def encoded(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


class EveryStore(SeveralStores):
    files = ("sqlite", "postgres")


@pytest.mark.parametrize(("machine", "lives"), [(SeveralStores, 100), (EveryStore, 20)])
def test_all_stores_answer_alike_and_every_record_is_the_fold_of_its_log(
    machine: type[SeveralStores], lives: int
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=lives, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
