"""What others have written is found, all of it and nothing twice, in whatever order it was begun and committed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from perdure.host import Host
from perdure.model.leases import Owner
from perdure.stores.postgres import changes
from perdure.stores.postgres.changes import Snapshot
from perdure.stores.postgres.reader import Reader
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.server import direct_url, schema_of, server_url
from tests.postgres.worlds import World, append, register, run, until, world


def test_what_ended_between_two_snapshots_is_told_exactly() -> None:
    before = Snapshot.read("100:105:101,103")
    after = Snapshot.read("103:108:103,106")
    assert after.ended_since(before) == {101, 105, 107}
    assert before.ended_since(before) == set()
    assert Snapshot.read("100:100:") == Snapshot(100, frozenset())


def test_a_program_is_told_what_others_wrote_and_not_what_it_wrote(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            other = await w.peer()
            try:
                await w.register("mine")
                assert await w.registry.peer_changes() == ()
                await other.execute(register("theirs"))
                await other.execute(append("mine"))
                await w.append("mine")
                assert sorted(await w.registry.peer_changes() or ()) == ["mine", "theirs"]
                assert await w.registry.peer_changes() == ()
                assert sorted(await other.peer_changes() or ()) == ["mine"]
            finally:
                await other.close()

    run(test())


def test_a_transaction_that_was_begun_first_and_committed_last_is_found(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            other = await w.peer()
            late = await asyncpg.connect(direct_url())
            try:
                await other.execute(register("p"))
                assert await w.registry.peer_changes() == ("p",)
                await late.execute("BEGIN")
                await late.execute(
                    f'INSERT INTO "{w.schema}".registrations (row, change, body) '
                    f'SELECT -row, pg_current_xact_id()::text::bigint, body FROM "{w.schema}".registrations'
                )
                await late.execute(
                    f'INSERT INTO "{w.schema}".processes (row, id, lane, priority, status, state) '
                    f"SELECT -row, 'late', lane, priority, status, state FROM \"{w.schema}\".processes"
                )
                await other.execute(register("q"))
                assert await w.registry.peer_changes() == ("q",), "nothing waits for what stays open"
                await late.execute("COMMIT")
                assert await w.registry.peer_changes() == ("late",)
            finally:
                await late.close()
                await other.close()

    run(test())


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_missed_while_many_write(tmp_path: Path, seed: int) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            writers = [await w.peer() for _ in range(4)]
            found: list[str] = []
            done = asyncio.Event()

            async def look() -> None:
                while not done.is_set():
                    found.extend(await w.registry.peer_changes() or ())
                found.extend(await w.registry.peer_changes() or ())

            async def write(writer: PostgresRegistry, number: int) -> None:
                chance = random.Random(seed * 100 + number)
                for n in range(60):
                    count = chance.randint(1, 4)
                    await writer.execute_all([register(f"p-{number}-{n}-{k}") for k in range(count)])

            looking = asyncio.ensure_future(look())
            await asyncio.gather(*(write(writer, number) for number, writer in enumerate(writers)))
            done.set()
            await looking
            for writer in writers:
                await writer.close()
            assert len(found) == len(set(found)), "each registration is one change"
            assert len(found) == await w.registry.count()

    run(test())


def test_when_too_much_has_changed_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MANY_CHANGES", 10)

    async def test() -> None:
        async with world(tmp_path) as w:
            other = await w.peer()
            try:
                await other.execute_all([register(f"p{n}") for n in range(11)])
                assert await w.registry.peer_changes() is None
                await other.execute(register("q"))
                assert await w.registry.peer_changes() == ("q",)
            finally:
                await other.close()

    run(test())


def test_a_hint_comes_when_another_program_has_committed_and_not_for_ones_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            hints = _hints(w.registry)
            other = await w.peer()
            try:
                await until(lambda: _is_set(hints), "the first hint: what was missed until it listened")
                hints.clear()
                await w.register("mine")
                await other.execute(register("theirs"))
                await until(lambda: _is_set(hints), "a hint")
                heard: list[str] = []
                w.registry.on_peer_hint(lambda: heard.append("a hint"))
                await w.register("mine-too")
                await until(lambda: _has_sent(w.registry), "its own hint is under way")
                await other.execute(register("theirs-too"))
                await until(lambda: _is_true(heard), "what comes after it on the same way")
                assert heard == ["a hint"]
            finally:
                await other.close()

    run(test())


def test_a_listener_that_was_cut_off_listens_again_and_looks(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            hints = _hints(w.registry)
            other = await w.peer()
            try:
                await until(lambda: _is_set(hints), "it listens")
                hints.clear()
                assert await _cut_listeners(w) >= 1
                await until(lambda: _is_set(hints), "it looks after it has listened again")
                hints.clear()
                await other.execute(register("p"))
                await until(lambda: _is_set(hints), "hints come again")
            finally:
                await other.close()

    run(test())


def test_where_hints_arrive_a_look_that_follows_closely_asks_only_after_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rows = Reader.rows

    async def noted(self: Reader, name: str, **values: Any) -> Sequence[Any]:
        if self in readers:
            asked.append(name)
        return await rows(self, name, **values)

    async def test() -> None:
        async with world(tmp_path) as w:
            readers.append(w.registry._engine.reader)
            hints = _hints(w.registry)
            assert [await w.registry.peer_changes() for _ in range(2)] == [(), ()]
            assert asked == ["look", "look"], "nothing is known of hints yet"
            await until(lambda: _is_set(hints), "the first hint: what was missed until it listened")
            await w.registry.peer_changes()
            asked.clear()
            assert [await w.registry.peer_changes() for _ in range(3)] == [(), (), ()]
            assert asked == []
            hints.clear()
            other = await w.peer()
            await other.execute(register("theirs"))
            await until(lambda: _is_set(hints), "a hint")
            assert await w.registry.peer_changes() == ("theirs",)
            await other.close()
            hints.clear()
            assert await _cut_listeners(w)
            await until(lambda: _is_gone(w.registry), "it notices that it hears nothing any more")
            await w.registry.peer_changes()
            assert asked == ["look", "look"]

    readers: list[Reader] = []
    monkeypatch.setattr(Reader, "rows", noted)
    monkeypatch.setattr(changes, "QUIET_FOR_MS", 60_000)
    run(test())


def test_a_start_here_runs_there_and_its_result_is_back(tmp_path: Path) -> None:
    """How long that takes is measured by the bench."""
    url = f"{server_url()}?schema={schema_of(tmp_path / 'two')}"
    here, there = Host(url, name="here", work=False), Host(url, name="there")

    @here.process(recovery="rerunnable", name="greet")
    async def asked(ctx: object, name: str) -> str:
        raise AssertionError("not here")

    @there.process(recovery="rerunnable", name="greet")
    async def greet(ctx: object, name: str) -> str:
        return f"hello {name}"

    async def test() -> None:
        async with here, there:
            runs = [await here.start(asked, f"n{n}") for n in range(20)]
            assert [await run.result() for run in runs] == [f"hello n{n}" for n in range(20)]

    run(test())


def test_the_death_of_an_owner_on_this_machine_is_proved_by_its_pid(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            dead, lives = Owner("dead", "dead-1"), Owner("lives", "lives-1")
            await w.register("p")
            await w.registry.enrol(dead)
            await w.registry.enrol(lives)
            await w.claim("dead")
            gone = "regexp_replace(identity, '\"pid\":[0-9]+', '\"pid\":4194999')"
            await w.sql.execute(f"UPDATE \"{w.schema}\".owners SET identity = {gone} WHERE incarnation = 'dead-1'")
            other = await w.peer()
            try:
                proofs = await other.prove_deaths()
                assert [(proof.incarnation, proof.method) for proof in proofs] == [("dead-1", "pid_gone")]
                elsewhere = 'regexp_replace(identity, \'"host":"[^"]*"\', \'"host":"elsewhere"\')'
                await w.sql.execute(f'UPDATE "{w.schema}".owners SET identity = {elsewhere}')
            finally:
                await other.close()
            third = await w.peer()
            try:
                assert await third.prove_deaths() == ()
            finally:
                await third.close()

    run(test())


def _hints(registry: PostgresRegistry) -> asyncio.Event:
    heard = asyncio.Event()
    registry.on_peer_hint(heard.set)
    return heard


async def _is_true(found: object) -> bool:
    return bool(found)


async def _has_sent(registry: PostgresRegistry) -> bool:
    sender = registry._engine.hints._sender
    return sender is not None and sender.done()


async def _is_gone(registry: PostgresRegistry) -> bool:
    return not registry._engine.hints.arrive


async def _is_set(event: asyncio.Event) -> bool:
    return event.is_set()


async def _cut_listeners(w: World) -> int:
    rows: Sequence[asyncpg.Record] = await w.sql.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perdure' "
        "AND query ~ '^(LISTEN|BEGIN; SET LOCAL synchronous_commit)' AND datname = current_database()"
    )
    return len(rows)
