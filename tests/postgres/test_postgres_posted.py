"""Signals posted in transactions of callers: delivered once, in order, by whoever drives."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from perdure import Host
from perdure.contract.moments import MomentName
from perdure.contract.ports import WorkerFault
from perdure.engines.python.signals import Signal
from perdure.errors import (
    InvalidPayload,
    ProcessAlreadyTerminal,
    ReplayKeyConflict,
    UndeclaredType,
    UnknownCodecVersion,
    UnknownProcess,
)
from perdure.model.events import Event
from perdure.runtime.passes import deliver_posted
from perdure.runtime.worker import DurableProcessWorker
from perdure.stores.postgres import posted as deliveries
from perdure.stores.postgres.hints import Hints
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import RequestCancel
from perdure.transitions.commands import Signal as SignalCommand
from tests.postgres.server import direct_url, server_url
from tests.postgres.shops import Shop, approve, own, shop
from tests.postgres.worlds import World, run, until, world

TAKES = {"approve": raw({"type": "string"})}


async def post(w: World, id: str, *payloads: str, key: str | None = None) -> None:
    """One transaction that posts these, in this order."""
    connection = await asyncpg.connect(server_url())
    async with connection.transaction():
        for payload in payloads:
            await w.registry.post(signal(id, payload, key), connection)
    await connection.close()


def signal(id: str, payload: str, key: str | None = None) -> SignalCommand:
    return SignalCommand(process_id=id, name="approve", payload=raw(payload), signal_id=key)


async def delivered(w: World, id: str) -> list[str]:
    events = (await w.registry.events_after(id, 0)).events
    return [msgspec.json.decode(event.payload)["payload"] for event in events]


async def posted(w: World) -> int:
    found: int = await w.fetchval("SELECT count(*) FROM {s}.posted")
    return found


# --- what is refused, and when ---------------------------------------------------------------------------------


def test_what_is_known_when_it_is_posted_is_refused_then(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path, work=False) as s, own() as mine:
            waiting = await s.host.start(s.await_approval, id="p")
            ended = await s.host.start(s.await_approval, id="ended")
            await ended.cancel()
            refused: list[tuple[Any, Any, Any, type[Exception]]] = [
                (s.host.get_handle("nobody"), approve, "yes", UnknownProcess),
                (waiting, Signal("another", str), "yes", UndeclaredType),
                (waiting, Signal("approve", int), 1, InvalidPayload),
                (ended, approve, "yes", ProcessAlreadyTerminal),
            ]
            for run_of, kind, payload, error in refused:
                with pytest.raises(error):
                    await run_of.signal(kind, payload, connection=mine.connection)
            await waiting.signal(approve, "first", id="s-1")
            with pytest.raises(ReplayKeyConflict):
                await waiting.signal(approve, "second", id="s-1", connection=mine.connection)
            await mine.commit()
            assert await s.count("posted") == 0

    run(test())


class Sink:
    def __init__(self) -> None:
        self.faults: list[WorkerFault] = []

    async def emit(self, event: Event) -> None:
        return

    def report(self, fault: WorkerFault) -> None:
        self.faults.append(fault)


def test_a_process_that_ends_before_the_delivery_refuses_it_then_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        sink = Sink()
        async with shop(tmp_path, sink=sink) as s, own() as mine:
            waiting = await s.host.start(s.await_approval, id="p")
            await waiting.signal(approve, "late", connection=mine.connection)
            await waiting.cancel("enough")
            await waiting.outcome()
            await mine.commit()

            async def told() -> bool:
                return bool(sink.faults)

            await until(told, "the fault is told")
            (fault,) = sink.faults
            assert (fault.kind, fault.process_id) == ("undelivered", "p")
            assert "was refused after its commit" in fault.message
            assert "has ended (cancelled)" in fault.detail
            assert s.host.worker is not None
            assert s.host.worker.undelivered == 1
            assert await s.count("posted") == 0
            assert [r.levelno for r in caplog.records if "undelivered" in r.getMessage()] == [logging.WARNING]

    run(test())


# --- once, and in order ----------------------------------------------------------------------------------------


def test_a_signal_with_an_id_is_sent_once_however_often_it_is_posted(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p", signals=TAKES)
            for _ in range(2):
                await post(w, "p", "yes", "yes", key="s-1")
            assert (await deliver_posted(w.registry)).delivered == 4
            await post(w, "p", "yes", key="s-1")  # it stands: there is nothing to post
            assert await posted(w) == 0
            await w.registry.execute(signal("p", "yes", "s-1"))
            assert await delivered(w, "p") == ["yes"]

    run(test())


def test_a_signal_with_an_id_that_stands_is_no_error_after_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p", signals=TAKES)
            await w.registry.execute(signal("p", "yes", "s-1"))
            await w.registry.execute(RequestCancel(process_id="p", reason="enough"))
            await post(w, "p", "yes", key="s-1")
            assert await posted(w) == 0

    run(test())


def test_many_who_deliver_at_once_deliver_each_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_AT_ONCE", 7)  # batches meet in the middle of what belongs together

    async def test() -> None:
        async with world(tmp_path) as w:
            peers = [w.registry, await w.peer(), await w.peer()]
            for n in range(4):
                await w.register(f"p{n}", signals=TAKES)
            for n in range(100):
                await post(w, f"p{n % 4}", *(f"{n:03}-{k}" for k in range(3)))

            async def deliver(registry: Any) -> int:
                count = 0
                async with asyncpg.create_pool(direct_url(), min_size=1, max_size=1) as pool:
                    while await pool.fetchval(f'SELECT count(*) FROM "{w.schema}".posted'):
                        count += (await deliver_posted(registry)).delivered
                return count

            counts = await asyncio.gather(*map(deliver, peers))
            assert sum(counts) == 300
            for n in range(4):
                expected = [f"{m:03}-{k}" for m in range(n, 100, 4) for k in range(3)]
                assert await delivered(w, f"p{n}") == expected
            for peer in peers[1:]:
                await peer.close()

    run(test())


def test_what_came_after_something_that_is_being_taken_waits_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id, signals=TAKES)
            await post(w, "p", "first")
            await post(w, "p", "second")
            await post(w, "q", "alone")
            other = await asyncpg.connect(direct_url())
            transaction = other.transaction()
            await transaction.start()
            taken = await other.fetchrow(f"SELECT * FROM \"{w.schema}\".take_posted(1, '{{}}')")
            assert taken is not None
            assert taken["ids"] == ["p"]
            await deliver_posted(w.registry)
            assert await delivered(w, "p") == []
            assert await delivered(w, "q") == ["alone"]
            await transaction.rollback()
            await deliver_posted(w.registry)
            assert await delivered(w, "p") == ["first", "second"]
            await other.close()

    run(test())


class FirstCommitFails:
    def __init__(self) -> None:
        self.armed = False

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if self.armed and moment == "commit.before":
            self.armed = False
            raise asyncpg.DeadlockDetectedError("on purpose")


def test_a_delivery_that_fails_before_its_commit_is_made_again_whole(tmp_path: Path) -> None:
    async def test() -> None:
        moments = FirstCommitFails()
        async with world(tmp_path, moments=moments) as w:
            await w.register("p", signals=TAKES)
            await post(w, "p", "first", "second")
            moments.armed = True
            assert (await deliver_posted(w.registry)).delivered == 2
            assert not moments.armed
            assert await delivered(w, "p") == ["first", "second"]

    run(test())


# --- what is in the way ----------------------------------------------------------------------------------------


def test_a_row_that_somebody_holds_delays_only_what_was_posted_to_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id, signals=TAKES)
            await post(w, "p", "held")
            await post(w, "q", "free")
            async with w.holding("p"):
                await deliver_posted(w.registry)
                assert await delivered(w, "q") == ["free"]
                assert await posted(w) == 1
            assert (await deliver_posted(w.registry)).delivered == 1
            assert await delivered(w, "p") == ["held"]

    run(test())


def test_what_another_version_has_posted_stays_for_it_and_is_told_of_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id, signals=TAKES)
            await post(w, "p", "first")
            await w.sql.execute(f'UPDATE "{w.schema}".posted SET codec = 2')
            await post(w, "p", "second")
            await post(w, "q", "free")
            (undelivered,) = (await deliver_posted(w.registry)).undelivered
            assert (undelivered.process_id, undelivered.kept) == ("p", True)
            assert isinstance(undelivered.error, UnknownCodecVersion)
            again = await deliver_posted(w.registry)
            assert (again.delivered, again.undelivered, again.more) == (0, (), False)
            assert await delivered(w, "q") == ["free"]
            assert await delivered(w, "p") == []
            await w.sql.execute(f'UPDATE "{w.schema}".posted SET codec = 1')
            assert (await deliver_posted(w.registry)).delivered == 2
            assert await delivered(w, "p") == ["first", "second"]

    run(test())


def test_what_was_posted_to_a_damaged_row_stays_until_it_is_mended(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id, signals=TAKES)
            await post(w, "p", "first")
            await post(w, "q", "free")
            state = await w.fetchval("SELECT state FROM {s}.processes WHERE id = 'p'")
            await w.sql.execute(f"UPDATE \"{w.schema}\".processes SET state = '{{' WHERE id = 'p'")
            (undelivered,) = (await deliver_posted(w.registry)).undelivered
            assert (undelivered.process_id, undelivered.kept) == ("p", True)
            assert await delivered(w, "q") == ["free"]
            await w.sql.execute(f"UPDATE \"{w.schema}\".processes SET state = $1 WHERE id = 'p'", state)
            assert (await deliver_posted(w.registry)).delivered == 1

    run(test())


# --- who delivers ----------------------------------------------------------------------------------------------


async def start_and_approve(s: Shop) -> None:
    async with own() as mine:
        started = await s.host.start(s.await_approval, id="p", connection=mine.connection)
        await started.signal(approve, "yes", connection=mine.connection)
        await mine.commit()


def test_what_is_posted_is_found_though_every_hint_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hints, "_received", lambda *_: None)

    async def test() -> None:
        async with shop(tmp_path) as s:
            await start_and_approve(s)
            assert await s.result("p") == "yes"

    run(test())


def test_another_host_delivers_what_one_that_does_not_work_has_posted(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path, work=False) as s:
            await start_and_approve(s)
            assert await s.count("posted") == 1
            other = Host(f"{server_url()}?schema={s.w.schema}")
            other.add(s.await_approval)
            async with other:
                assert await s.result("p") == "yes"

    run(test())


def test_a_host_that_drives_by_hand_delivers_in_its_drive(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p", signals=TAKES)
            await post(w, "p", "yes")
            worker = DurableProcessWorker(w.registry, [])
            await worker.claim_and_run_pending("by hand")
            assert await delivered(w, "p") == ["yes"]
            await worker.drain()

    run(test())
