"""Steps that write in the store's own transaction: both commit or neither, and nothing else can be done in it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import InvalidOption, LeaseSuperseded
from perdure.host import Host
from perdure.model.leases import LeaseKey
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.testing.faults import FailAfter, FailBefore, FaultyRegistry, script
from perdure.transitions.commands import AppendEvent, LeaseRight, Register, RowCommand
from tests.durable.bodies import error, run, value

Body = Callable[[ProcessContext], Awaitable[Any]]
Step = Callable[..., Any]

WORK = Registration(id="p", definition=Definition("python", "work"), recovery="rerunnable")


def pay(connection: apsw.Connection, order: str, amount: int) -> int:
    connection.execute("CREATE TABLE IF NOT EXISTS payments (number TEXT, amount INTEGER)")
    connection.execute("INSERT INTO payments VALUES (?, ?)", (order, amount))
    return amount


def payments(path: Path) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute("SELECT number, amount FROM payments"))
    finally:
        connection.close()


async def outcome_of(body: Body, path: Path, *, registry: FaultyRegistry | None = None) -> Any:
    host = Host(f"sqlite:///{path}", registry=registry)

    @host.process(recovery="rerunnable")
    async def work(ctx: ProcessContext) -> Any:
        return await body(ctx)

    async with host:
        return await (await host.start(work, id="p")).outcome()


def step_fails(step: Step, path: Path) -> tuple[str, str]:
    async def body(ctx: ProcessContext) -> Any:
        return await ctx.step(step, transactional=True)

    return error(asyncio.run(outcome_of(body, path)))


def test_what_a_step_writes_commits_with_its_result(tmp_path: Path) -> None:
    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(pay, "o-1", 7, transactional=True)

    path = tmp_path / "work.db"
    assert value(asyncio.run(outcome_of(body, path))) == 7
    assert payments(path) == [("o-1", 7)]


def test_a_plain_process_has_such_steps_too(tmp_path: Path) -> None:
    path = tmp_path / "work.db"

    async def test() -> Any:
        host = Host(f"sqlite:///{path}")

        @host.process(recovery="rerunnable")
        def work(ctx: SyncContext) -> int:
            return ctx.step(pay, "o-1", 7, transactional=True)

        async with host:
            return await (await host.start(work, id="p")).outcome()

    assert value(asyncio.run(test())) == 7
    assert payments(path) == [("o-1", 7)]


def test_what_a_failing_step_wrote_is_taken_back_and_its_next_try_begins_anew(tmp_path: Path) -> None:
    tries: list[int] = []

    def flaky(connection: apsw.Connection) -> int:
        pay(connection, f"try-{len(tries)}", 1)
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(flaky, transactional=True, retry=Retry(max_attempts=3, initial=timedelta(milliseconds=1)))

    path = tmp_path / "work.db"
    assert value(asyncio.run(outcome_of(body, path))) == 3
    assert payments(path) == [("try-2", 1)]


def test_an_error_of_the_users_own_sql_is_the_steps_failure_and_nothing_of_it_stands(tmp_path: Path) -> None:
    def twice(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE once (n INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO once VALUES (1)")
        connection.execute("INSERT INTO once VALUES (1)")

    path = tmp_path / "work.db"
    kind, message = step_fails(twice, path)
    assert (kind, "UNIQUE constraint failed" in message) == ("StepFailed", True)
    connection = apsw.Connection(str(path))
    assert list(connection.execute("SELECT name FROM sqlite_schema WHERE name = 'once'")) == []


def test_a_conflict_that_rolls_back_ends_the_step_though_its_code_goes_on(tmp_path: Path) -> None:
    def swallows(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS once (n INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO once VALUES (1)")
        with contextlib.suppress(apsw.ConstraintError):
            connection.execute("INSERT OR ROLLBACK INTO once VALUES (1)")
        connection.execute("CREATE TABLE afterwards (n)")

    path = tmp_path / "work.db"
    kind, message = step_fails(swallows, path)
    assert (kind, "a conflict has rolled back" in message) == ("StepFailed", True)
    connection = apsw.Connection(str(path))
    found = list(connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('once', 'afterwards')"))
    assert found == []


def test_a_conflict_that_rolls_back_at_the_very_end_ends_the_step_too(tmp_path: Path) -> None:
    def swallows(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE once (n INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)")
        connection.execute("INSERT INTO once VALUES (1)")
        with contextlib.suppress(apsw.ConstraintError):
            connection.execute("INSERT INTO once VALUES (1)")

    kind, message = step_fails(swallows, tmp_path / "work.db")
    assert (kind, "a conflict has rolled back" in message) == ("StepFailed", True)


def test_a_constraint_that_is_checked_at_the_commit_is_the_steps_failure(tmp_path: Path) -> None:
    def dangling(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE owner (n INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE owned (n REFERENCES owner DEFERRABLE INITIALLY DEFERRED)")
        connection.execute("INSERT INTO owned VALUES (1)")

    kind, message = step_fails(dangling, tmp_path / "work.db")
    assert (kind, "FOREIGN KEY constraint failed" in message) == ("StepFailed", True)


def test_a_step_in_a_branch_knows_that_it_is_one(tmp_path: Path) -> None:
    contexts: list[ProcessContext] = []
    said: list[str] = []
    asked = contextvars.ContextVar("asked", default="by nobody")

    def makes_an_operation(connection: apsw.Connection) -> None:
        said.append(asked.get())
        contexts[0].now()

    async def body(ctx: ProcessContext) -> None:
        contexts.append(ctx)
        asked.set("by me")
        await ctx.gather(ctx.step(makes_an_operation, transactional=True), ctx.sleep(0))

    kind, message = error(asyncio.run(outcome_of(body, tmp_path / "work.db")))
    assert (kind, "a durable operation is made inside step 'makes_an_operation'" in message) == ("StepFailed", True)
    assert said == ["by me"]


@pytest.mark.parametrize(
    ("sql", "may_not"),
    [
        ("COMMIT", "begin, commit or roll back"),
        ("ROLLBACK", "begin, commit or roll back"),
        ("PRAGMA synchronous=OFF", "change a setting"),
        ("ATTACH ':memory:' AS other", "attach a file"),
        ("UPDATE leases SET fence = 99", "update Perdure's own table 'leases'"),
        ("DELETE FROM processes", "delete from Perdure's own table 'processes'"),
        ("DROP TABLE events", "drop Perdure's own table 'events'"),
        ("ALTER TABLE events ADD COLUMN mine", "alter Perdure's own table 'events'"),
    ],
)
def test_what_would_end_the_transaction_or_harm_the_store_is_refused(sql: str, may_not: str, tmp_path: Path) -> None:
    def harmful(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE mine (n)")
        connection.execute(sql)

    path = tmp_path / "work.db"
    kind, message = step_fails(harmful, path)
    assert kind == "StepFailed"
    assert f"NotTransactional: sqlite:///{path}: code in a transaction of ours may not {may_not}" in message
    connection = apsw.Connection(str(path))
    assert list(connection.execute("SELECT name FROM sqlite_schema WHERE name = 'mine'")) == []


def test_perdures_own_tables_can_be_read(tmp_path: Path) -> None:
    def look(connection: apsw.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM processes").get)

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(look, transactional=True)

    assert value(asyncio.run(outcome_of(body, tmp_path / "work.db"))) == 1


def test_a_step_that_waits_in_the_transaction_is_refused(tmp_path: Path) -> None:
    async def waits(connection: apsw.Connection) -> None:
        await asyncio.sleep(0)

    kind, message = step_fails(waits, tmp_path / "work.db")
    assert (kind, "Make it a plain function" in message) == ("StepFailed", True)


def test_a_store_in_memory_has_no_transaction_to_lend() -> None:
    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(pay, "o-1", 7, transactional=True)

    outcome, _machine = run(body)
    assert error(outcome)[1].startswith("step 'pay' failed: NotTransactional: memory://: there is no database")


def test_a_timeout_is_refused_since_nothing_could_be_interrupted() -> None:
    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(pay, "o-1", 7, transactional=True, timeout=1)

    outcome, _machine = run(body)
    assert error(outcome)[0] == InvalidOption.__name__


@pytest.mark.parametrize("fault", [FailBefore(), FailAfter()])
def test_a_lost_answer_leaves_it_written_once(fault: FailBefore | FailAfter, tmp_path: Path) -> None:
    path = tmp_path / "work.db"

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(pay, "o-1", 7, transactional=True)

    async def test() -> Any:
        registry = await SqliteRegistry.open(path)
        try:
            faulty = FaultyRegistry(registry, script({("execute_within", 1): fault}))
            return await outcome_of(body, path, registry=faulty)
        finally:
            await registry.close()

    assert value(asyncio.run(test())) == 7
    assert payments(path) == [("o-1", 7)]


def test_a_stale_owner_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    stale = LeaseKey("p", "another", "a token that no lease has", 1)

    async def work(connection: apsw.Connection) -> RowCommand:
        pay(connection, "o-1", 7)
        return AppendEvent(
            process_id="p", type="step.completed", payload=Raw(b"{}"), replay_key="pay", execution=LeaseRight(stale)
        )

    async def test() -> None:
        registry = await SqliteRegistry.open(path)
        try:
            definition = Definition("python", "work")
            await registry.execute(
                Register(
                    process_id="p", registration=Registration(id="p", definition=definition, recovery="rerunnable")
                )
            )
            with pytest.raises(LeaseSuperseded):
                await registry.execute_within(work)
        finally:
            await registry.close()

    asyncio.run(test())
    connection = apsw.Connection(str(path))
    assert list(connection.execute("SELECT name FROM sqlite_schema WHERE name = 'payments'")) == []


def test_a_step_that_was_committed_already_takes_back_what_it_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "work.db"

    async def work(connection: apsw.Connection) -> RowCommand:
        pay(connection, "o-1", 7)
        return AppendEvent(process_id="p", type="paid", payload=Raw(b"{}"), replay_key="pay")

    async def test() -> list[bool]:
        registry = await SqliteRegistry.open(path)
        try:
            definition = Definition("python", "work")
            await registry.execute(
                Register(
                    process_id="p", registration=Registration(id="p", definition=definition, recovery="rerunnable")
                )
            )
            return [(await registry.execute_within(work)).replayed for _ in range(2)]
        finally:
            await registry.close()

    assert asyncio.run(test()) == [False, True]
    assert payments(path) == [("o-1", 7)]
