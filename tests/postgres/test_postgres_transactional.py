"""Steps that write in the store's own transaction on PostgreSQL: both commit or neither."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.errors import LeaseSuperseded, NotTransactional, OutcomeUnknown, StoreUnavailable
from perdure.host import Host
from perdure.model.outcomes import Completed, Failed
from perdure.stores.postgres.faults import Overtaken
from perdure.stores.postgres.rows import PostgresRows
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import AppendEvent, Complete, LeaseRight, RowCommand
from tests.postgres.server import server_url
from tests.postgres.test_postgres_outages import LOST, FailingCommits
from tests.postgres.worlds import World, append, run, until, waiting, world

Connection = Any


async def payments(w: World) -> list[tuple[str, int]]:
    rows = await w.sql.fetch(f'SELECT number, amount FROM "{w.schema}".payments ORDER BY number')
    return [(row[0], row[1]) for row in rows]


async def with_table(w: World) -> None:
    await w.sql.execute(f'CREATE TABLE "{w.schema}".payments (number text PRIMARY KEY, amount int)')


async def outcome_of(w: World, body: Callable[[ProcessContext], Awaitable[Any]], id: str = "p") -> Any:
    host = Host(f"{server_url()}?schema={w.schema}")

    @host.process(recovery="rerunnable")
    async def work(ctx: ProcessContext) -> Any:
        return await body(ctx)

    async with host:
        return await (await host.start(work, id=id)).outcome()


def test_what_a_step_writes_commits_with_its_result(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)

            async def pay(connection: Connection, order: str, amount: int) -> int:
                async with connection.transaction():
                    await connection.execute(f'INSERT INTO "{w.schema}".payments VALUES ($1, $2)', order, amount)
                return amount

            async def body(ctx: ProcessContext) -> Any:
                return await ctx.step(pay, "o-1", 7, transactional=True)

            assert isinstance(await outcome_of(w, body), Completed)
            assert await payments(w) == [("o-1", 7)]

    run(test())


def test_what_a_failing_step_wrote_is_taken_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)

            async def pay_twice(connection: Connection) -> None:
                await connection.execute(f"INSERT INTO \"{w.schema}\".payments VALUES ('o-1', 7)")
                await connection.execute(f"INSERT INTO \"{w.schema}\".payments VALUES ('o-1', 8)")

            async def body(ctx: ProcessContext) -> Any:
                return await ctx.step(pay_twice, transactional=True)

            outcome = await outcome_of(w, body)
            assert isinstance(outcome, Failed)
            assert "duplicate key" in outcome.error.message
            assert await payments(w) == []

    run(test())


def working(w: World, statement: str, command: RowCommand) -> Callable[[Connection], Any]:
    async def work(connection: Connection) -> RowCommand:
        await connection.execute(statement.replace("{s}", f'"{w.schema}"'))
        return command

    return work


PAY = "INSERT INTO {s}.payments VALUES ('o-1', 7)"


def test_a_refused_command_takes_back_what_was_written(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")
            (one,) = (await w.claim("a")).claimed
            await w.lapse("p")
            stale = AppendEvent(
                process_id="p", type="note", payload=append("p").payload, execution=LeaseRight(one.lease.key)
            )
            with pytest.raises(LeaseSuperseded):
                await w.registry.execute_within(working(w, PAY, stale))
            assert await payments(w) == []
            await w.registry.execute_within(working(w, PAY, append("p")))
            assert await payments(w) == [("o-1", 7)]

    run(test())


def test_a_command_that_was_done_before_takes_back_what_was_written_and_answers_as_before(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")
            command = AppendEvent(process_id="p", type="note", payload=append("p").payload, replay_key="k")
            first = await w.registry.execute_within(working(w, PAY, command))
            again = await w.registry.execute_within(working(w, PAY.replace("o-1", "o-2"), command))
            assert (again.replayed, again.events) == (True, first.events)
            assert await payments(w) == [("o-1", 7)]

    run(test())


@pytest.mark.parametrize(
    ("statement", "match"),
    [("COMMIT", "may not commit"), ("ROLLBACK", "may not commit"), ("COMMIT; BEGIN", "may not commit")],
)
def test_code_that_ends_the_transaction_is_refused(tmp_path: Path, statement: str, match: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            with pytest.raises(NotTransactional, match=match):
                await w.registry.execute_within(working(w, statement, append("p")))
            assert (await w.registry.events_after("p", 0)).events == ()
            await w.registry.execute_within(working(w, "SELECT 1", append("p")))

    run(test())


def test_an_error_that_the_code_has_swallowed_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")

            async def swallows(connection: Connection) -> RowCommand:
                with pytest.raises(asyncpg.UndefinedTableError):
                    await connection.execute("SELECT * FROM nowhere_to_be_found")
                return append("p")

            with pytest.raises(NotTransactional, match="savepoint"):
                await w.registry.execute_within(swallows)

    run(test())


def test_what_the_code_raises_is_raised_and_its_caller_may_give_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")
            entered = asyncio.Event()

            async def raises(connection: Connection) -> RowCommand:
                raise ZeroDivisionError("mine")

            async def waits(connection: Connection) -> RowCommand:
                await connection.execute(PAY.replace("{s}", f'"{w.schema}"'))
                entered.set()
                await asyncio.Event().wait()
                raise AssertionError("unreachable")

            with pytest.raises(ZeroDivisionError, match="mine"):
                await w.registry.execute_within(raises)
            asked = asyncio.ensure_future(w.registry.execute_within(waits))
            await entered.wait()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await payments(w) == []

    run(test())


def test_when_the_answer_of_its_commit_is_lost_the_replay_key_tells(tmp_path: Path) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            await with_table(w)
            await w.register("p")
            command = AppendEvent(process_id="p", type="note", payload=append("p").payload, replay_key="k")
            commits.armed = "commit.after", LOST
            with pytest.raises(OutcomeUnknown):
                await w.registry.execute_within(working(w, PAY, command))
            assert (await w.registry.execute_within(working(w, PAY.replace("o-1", "o-2"), command))).replayed
            assert await payments(w) == [("o-1", 7)]

    run(test())


def test_others_hear_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            heard: list[Any] = []
            w.registry.observe(heard.extend)
            other = await w.peer()
            try:
                await w.registry.execute_within(working(w, "SELECT 1", append("p")))
                assert [receipt.process_id for receipt in heard] == ["p"]
                assert await other.peer_changes() == ("p",)
                assert await w.registry.peer_changes() == ()
            finally:
                await other.close()

    run(test())


@pytest.mark.parametrize(
    "error", [ConnectionError("theirs"), TimeoutError("theirs"), OSError(28, "theirs"), EOFError()]
)
def test_an_error_of_the_codes_own_network_or_files_says_nothing_of_the_store(tmp_path: Path, error: Exception) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")

            async def raises(connection: Connection) -> RowCommand:
                await connection.execute(PAY.replace("{s}", f'"{w.schema}"'))
                raise error

            with pytest.raises(type(error)) as raised:
                await w.registry.execute_within(raises)
            assert raised.value is error
            assert await payments(w) == []
            await w.registry.execute_within(working(w, PAY, append("p")))

    run(test())


def test_a_step_that_raises_such_an_error_is_tried_again_by_its_own_policy(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            tries: list[str] = []
            entries: list[str] = []

            async def flaky(connection: Connection) -> int:
                tries.append(f"o-{len(tries)}")
                await connection.execute(f'INSERT INTO "{w.schema}".payments VALUES ($1, 7)', tries[-1])
                if len(tries) < 3:
                    raise ConnectionError("not yet")
                return len(tries)

            async def body(ctx: ProcessContext) -> Any:
                entries.append("the process")
                policy = Retry(max_attempts=3, initial=timedelta(milliseconds=1))
                return await ctx.step(flaky, transactional=True, retry=policy)

            assert isinstance(await outcome_of(w, body), Completed)
            assert await payments(w) == [("o-2", 7)]
            assert entries == ["the process"]

    run(test())


async def end_connection(w: World, connection: Connection) -> None:
    pid = await connection.fetchval("SELECT pg_backend_pid()")  # a pooler makes up the one that the driver knows
    await w.sql.execute("SELECT pg_terminate_backend($1, 10000)", pid)
    while not connection.is_closed():  # noqa: ASYNC110 - the server brings it about
        await asyncio.sleep(0.005)


def test_a_connection_that_is_lost_while_the_code_has_it_is_the_stores_whatever_the_code_makes_of_it(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")

            async def goes_on(connection: Connection) -> RowCommand:
                await end_connection(w, connection)
                return append("p")

            async def lets_it_out(connection: Connection) -> RowCommand:
                await end_connection(w, connection)
                await connection.execute("SELECT 1")
                return append("p")

            async def wraps_it(connection: Connection) -> RowCommand:
                try:
                    return await lets_it_out(connection)
                except asyncpg.InterfaceError as error:
                    raise LookupError("wrapped") from error

            for code in (goes_on, lets_it_out, wraps_it):
                with pytest.raises(StoreUnavailable):
                    await w.registry.execute_within(code)
            assert (await w.registry.events_after("p", 0)).events == ()
            await w.registry.execute_within(working(w, "SELECT 1", append("p")))

    run(test())


def test_code_that_ends_the_transaction_and_raises_leaves_nothing_to_who_comes_next(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")

            async def ends_it(connection: Connection) -> RowCommand:
                await connection.execute("ROLLBACK")
                raise ZeroDivisionError("mine")

            with pytest.raises(ZeroDivisionError, match="mine"):
                await w.registry.execute_within(ends_it)
            await w.registry.execute_within(working(w, "SELECT 1", append("p")))

    run(test())


def test_a_constraint_that_is_checked_at_the_commit_is_the_steps_failure(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(
                f'CREATE TABLE "{w.schema}".owners_of (n int PRIMARY KEY); CREATE TABLE "{w.schema}".owned '
                f'(n int REFERENCES "{w.schema}".owners_of DEFERRABLE INITIALLY DEFERRED)'
            )
            dangling = working(w, "INSERT INTO {s}.owned VALUES (1)", append("p"))
            await w.register("p")
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await w.registry.execute_within(dangling)
            assert (await w.registry.events_after("p", 0)).events == ()

            async def dangle(connection: Connection) -> None:
                await connection.execute(f'INSERT INTO "{w.schema}".owned VALUES (1)')

            async def body(ctx: ProcessContext) -> Any:
                return await ctx.step(dangle, transactional=True)

            outcome = await outcome_of(w, body, "q")
            assert isinstance(outcome, Failed)
            assert (outcome.error.type, "foreign key" in outcome.error.message) == ("StepFailed", True)

    run(test())


def test_an_error_of_the_code_is_not_hidden_by_a_connection_that_can_not_roll_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            left: list[asyncio.Task[Any]] = []

            async def leaves_a_statement_behind(connection: Connection) -> RowCommand:
                left.append(asyncio.create_task(connection.execute("SELECT pg_sleep(30)")))
                await asyncio.sleep(0)
                raise ZeroDivisionError("mine")

            with pytest.raises(ZeroDivisionError, match="mine"):
                await w.registry.execute_within(leaves_a_statement_behind)
            await asyncio.wait(left)
            assert left[0].exception() is not None
            await w.registry.execute_within(working(w, "SELECT 1", append("p")))

    run(test())


def test_a_command_that_somebody_overtakes_is_done_again_with_what_was_written(tmp_path: Path) -> None:
    """The lease is renewed between the reading and the writing of what ends it."""

    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")
            (one,) = (await w.claim("a")).claimed
            complete = Complete(process_id="p", outcome=Completed(raw(1)), authority=LeaseRight(one.lease.key))
            await w.sql.execute("BEGIN")
            await w.sql.execute(
                f'UPDATE "{w.schema}".leases SET boot_expires_at = boot_expires_at + 60000, '
                "expires_at = expires_at + 60000"
            )
            ending = asyncio.ensure_future(w.registry.execute_within(working(w, PAY, complete)))
            await until(lambda: waiting(w), "the end waits for the lease")
            await w.sql.execute("COMMIT")
            assert (await ending).answer == "applied"
            assert await payments(w) == [("o-1", 7)]
            assert (await w.registry.get("p")).status == "completed"

    run(test())


def test_a_command_that_is_overtaken_again_and_again_is_the_stores_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(self: PostgresRows, commit: object) -> None:
        raise Overtaken

    async def test() -> None:
        async with world(tmp_path) as w:
            await with_table(w)
            await w.register("p")
            monkeypatch.setattr(PostgresRows, "commit_by", overtaken)
            with pytest.raises(StoreUnavailable, match="in the way again and again"):
                await w.registry.execute_within(working(w, PAY, append("p")))
            with pytest.raises(StoreUnavailable, match="in the way again and again"):
                await w.append("p")
            assert await payments(w) == []

    run(test())
