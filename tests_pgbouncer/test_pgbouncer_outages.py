"""PgBouncer, or the server behind it, is restarted: nothing acknowledged is lost, and work goes on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from lab.cluster import Cluster
from lab.pgbouncer import Pooler, Program
from perdure import Host, ProcessContext
from perdure.errors import OutcomeUnknown, StoreUnavailable
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.server import schema_of
from tests.postgres.worlds import append, register, run, until


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_acknowledged_is_lost_when_the_pooler_is_restarted_again_and_again(
    pooler: Pooler, tmp_path: Path, how: signal.Signals
) -> None:
    async def test() -> None:
        registry = await PostgresRegistry.open(pooler.url, schema_of(tmp_path / "restarted"))
        acknowledged: list[str] = []
        stop = asyncio.Event()

        async def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                id = f"p-{writer}-{number}"
                try:
                    await registry.execute(register(id))
                except (StoreUnavailable, OutcomeUnknown):
                    await asyncio.sleep(0.02)
                else:
                    acknowledged.append(id)

        async def more(than: int) -> bool:
            return len(acknowledged) >= than

        writers = [asyncio.ensure_future(write(n)) for n in range(8)]
        for round in range(4):
            wanted = len(acknowledged) + 50
            await until(lambda wanted=wanted: more(wanted), f"work goes on in round {round}")  # type: ignore[misc]
            pooler.stop(how)
            pooler.start()
        stop.set()
        await asyncio.gather(*writers)
        assert (await registry.get_many(acknowledged)).keys() == set(acknowledged)
        await registry.close()

    run(test(), bound_s=120)


def test_a_process_goes_on_when_the_pooler_was_away(pooler: Pooler, tmp_path: Path) -> None:
    host = Host(f"{pooler.url}?schema={schema_of(tmp_path / 'away')}")
    entered, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @host.process(recovery="rerunnable")
    async def slow(ctx: ProcessContext) -> str:
        entered.set()
        await go_on.wait()
        ended.set()
        return "done"

    async def test() -> None:
        async with host:
            running = await host.start(slow)
            await entered.wait()
            pooler.stop(signal.SIGKILL)
            go_on.set()
            await ended.wait()  # its end has to be written, and there is no way to the server
            pooler.start()
            assert await running.result() == "done"
            assert (await running.record()).attempt == 1

    run(test())


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
