"""PgBouncer, or the server behind it, is restarted: nothing acknowledged is lost, and work goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lab.cluster import Cluster
from lab.pgbouncer import Pooler, Program
from perdure.errors import StoreUnavailable
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.restarts import a_process_goes_on, nothing_acknowledged_is_lost
from tests.postgres.server import schema_of
from tests.postgres.worlds import append, register, run, until


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_acknowledged_is_lost_when_the_pooler_is_restarted_again_and_again(
    pooler: Pooler, tmp_path: Path, how: signal.Signals
) -> None:
    def restart() -> None:
        pooler.stop(how)
        pooler.start()

    run(nothing_acknowledged_is_lost(pooler.url, schema_of(tmp_path / "restarted"), restart), bound_s=120)


def test_a_process_goes_on_when_the_pooler_was_away(pooler: Pooler, tmp_path: Path) -> None:
    url = f"{pooler.url}?schema={schema_of(tmp_path / 'away')}"
    run(a_process_goes_on(url, lambda: pooler.stop(signal.SIGKILL), pooler.start))


def test_a_server_that_is_restarted_behind_the_pooler_is_found_again(program: Program, tmp_path: Path) -> None:
    cluster = Cluster()
    behind = Pooler(cluster.url, program)

    async def test() -> None:
        registry = await PostgresRegistry.open(behind.url, schema_of(tmp_path / "restarted"))
        await registry.execute(register("p"))
        cluster.stop(signal.SIGQUIT)
        cluster.start()
        await until(lambda: _answers(registry), "the server is found again")
        await registry.execute(append("p"))
        assert [event.type for event in (await registry.events_after("p", 0)).events][-1] == "note"
        await registry.close()

    try:
        cluster.start()
        behind.start()
        run(test())
    finally:
        behind.remove()
        cluster.remove()


async def _answers(registry: PostgresRegistry) -> bool:
    try:
        return (await registry.get("p")).id == "p"
    except StoreUnavailable:
        return False
