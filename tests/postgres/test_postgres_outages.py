"""What befalls the server or the way to it: typed, nothing acknowledged lost, and work goes on when it is over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from lab.cluster import Cluster
from perdure.contract.moments import MomentName
from perdure.errors import OutcomeUnknown, StoreFull, StoreLocked, StoreReadOnly, StoreUnavailable
from perdure.model.outcomes import Completed
from perdure.stores.postgres import committing
from perdure.stores.postgres.faults import typed
from perdure.stores.postgres.store import PostgresRegistry
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import Complete, LeaseRight, Receipt, Renew
from tests.postgres.restarts import a_process_goes_on, nothing_acknowledged_is_lost
from tests.postgres.server import direct_url, schema_of
from tests.postgres.worlds import append, claim, register, run, world


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server of this module's own, as it is stopped and killed here."""
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.remove()


class FailingCommits:
    """Raises `error` once, at the first `moment` after it was armed."""

    def __init__(self) -> None:
        self.armed: tuple[MomentName, Exception] | None = None

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if self.armed is not None and self.armed[0] == moment:
            error, self.armed = self.armed[1], None
            raise error


LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


# --- one commit ------------------------------------------------------------------------------------------------


def test_when_the_answer_of_a_commit_is_lost_asking_again_by_operation_id_tells_which(tmp_path: Path) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            await w.register("p")
            (one,) = (await w.claim()).claimed
            complete = Complete(
                process_id="p", outcome=Completed(raw(1)), authority=LeaseRight(one.lease.key), operation_id="op-1"
            )
            commits.armed = "commit.after", LOST
            with pytest.raises(OutcomeUnknown, match="Ask again with the same operation id"):
                await w.registry.execute(complete)
            written = await w.registry.execute(complete)
            assert (written.answer, [event.type for event in written.events]) == ("applied", ["process.completed"])
            assert len((await w.registry.events_after("p", 0)).events) == 2

    run(test())


def test_when_the_answer_of_a_claim_is_lost_its_claim_id_returns_the_rows(tmp_path: Path) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            for n in range(4):
                await w.register(f"p{n}", recovery="owner_bound")
            asked = claim(limit=2)
            commits.armed = "commit.after", LOST
            with pytest.raises(OutcomeUnknown):
                await w.registry.execute(asked)
            assert len((await w.registry.execute(asked)).claimed) == 2
            assert len((await w.claim("b")).claimed) == 2

    run(test())


def test_a_connection_that_is_lost_before_the_commit_costs_nobody_anything(tmp_path: Path) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            commits.armed = "commit.before", LOST
            answers = await asyncio.gather(*(w.register(f"p{n}") for n in range(5)))
            assert [answer.answer for answer in answers] == ["applied"] * 5
            assert await w.registry.count() == 5

    run(test())


@pytest.mark.parametrize("error", [asyncpg.SerializationError("40001"), asyncpg.DeadlockDetectedError("40P01")])
def test_what_the_database_gave_up_for_another_is_done_again(tmp_path: Path, error: Exception) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            commits.armed = "commit.before", error
            assert (await w.register("p")).answer == "applied"

    run(test())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncpg.DiskFullError("no space"), StoreFull),
        (asyncpg.QueryCanceledError("canceling statement due to statement timeout"), StoreUnavailable),
        (asyncpg.OutOfMemoryError("out of memory"), StoreUnavailable),
    ],
)
def test_when_a_commit_fails_every_caller_is_told_and_the_next_commands_are_done(
    tmp_path: Path, error: Exception, told: type[Exception]
) -> None:
    async def test() -> None:
        commits = FailingCommits()
        async with world(tmp_path, moments=commits) as w:
            commits.armed = "commit.before", error
            answers = await asyncio.gather(w.register("p"), w.register("q"), return_exceptions=True)
            assert [type(answer) for answer in answers] == [told, told]
            assert await w.registry.count() == 0
            await w.register("p")

    run(test())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.TooManyConnectionsError("53300"), StoreUnavailable),
        (asyncpg.ReadOnlySQLTransactionError("25006"), StoreReadOnly),
        (asyncpg.LockNotAvailableError("55P03"), StoreLocked),
        (asyncpg.CannotConnectNowError("57P03"), StoreUnavailable),
        (asyncpg.UndefinedTableError("42P01"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (ConnectionRefusedError(111, "Connection refused"), StoreUnavailable),
        (asyncpg.InternalServerError("XX000"), StoreUnavailable),
    ],
)
def test_each_error_of_the_server_means_something(error: Exception, kind: type[Exception]) -> None:
    told = typed(error, "postgresql://host/db")
    assert type(told) is kind
    assert str(told).startswith("postgresql://host/db: ")


# --- the server ------------------------------------------------------------------------------------------------


def test_a_server_that_is_restarted_is_found_again(cluster: Cluster, tmp_path: Path) -> None:
    async def test() -> None:
        registry = await PostgresRegistry.open(cluster.url, schema_of(tmp_path / "restarted"))
        await registry.execute(register("before"))
        cluster.stop(signal.SIGINT)
        asked = asyncio.ensure_future(registry.execute(register("during")))
        cluster.start()
        receipt: Receipt = await asked
        assert receipt.answer == "applied"
        assert (await registry.get("before")).id == "before"
        await registry.close()

    run(test())


def test_nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    def restart() -> None:
        cluster.stop(signal.SIGKILL)
        cluster.start()

    run(nothing_acknowledged_is_lost(cluster.url, schema_of(tmp_path / "killed"), restart), bound_s=120)


def test_without_a_server_callers_are_told_within_the_bound_and_work_goes_on_when_it_is_back(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "RECONNECT_BOUND_S", 0.2)

    async def test() -> None:
        registry = await PostgresRegistry.open(cluster.url, schema_of(tmp_path / "away"))
        await registry.execute(register("p"))
        cluster.stop(signal.SIGQUIT)
        try:
            with pytest.raises(StoreUnavailable, match="can't be reached"):
                await registry.execute(append("p"))
            with pytest.raises(StoreUnavailable):
                await registry.get("p")
            with pytest.raises(StoreUnavailable):
                await asyncio.wrap_future(registry.renew_from_thread(Renew(keys=(), ttl_ms=1_000)))
        finally:
            cluster.start()
        await registry.execute(append("p"))
        assert len((await registry.events_after("p", 0)).events) == 1
        await registry.close()

    run(test())


def test_a_host_goes_on_when_its_server_was_away(cluster: Cluster, tmp_path: Path) -> None:
    url = f"{cluster.url}?schema={schema_of(tmp_path / 'host')}"
    run(a_process_goes_on(url, lambda: cluster.stop(signal.SIGQUIT), cluster.start))


def test_connections_that_are_ended_one_by_one_lose_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            killer = await asyncpg.connect(direct_url())
            ended = 0

            async def end_connections() -> None:
                nonlocal ended
                while ended < 10:
                    ended += await killer.fetchval(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE application_name = 'perdure' AND strpos(query, $1) > 0 AND random() < 0.3", w.schema,
                    )  # fmt: skip
                    await asyncio.sleep(0.01)

            ending = asyncio.ensure_future(end_connections())
            answers: list[Any] = []
            while not ending.done():
                ids = [f"p{len(answers) + n}" for n in range(100)]
                answers += await asyncio.gather(*map(w.register, ids), return_exceptions=True)
            await ending
            await killer.close()
            assert all(isinstance(answer, Receipt | OutcomeUnknown | StoreUnavailable) for answer in answers)
            surely = [f"p{n}" for n, answer in enumerate(answers) if isinstance(answer, Receipt)]
            assert surely
            assert (await w.registry.get_many(surely)).keys() == set(surely)

    run(test())
