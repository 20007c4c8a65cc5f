"""Doctor on PostgreSQL: what lives there. Owners, the runs that nobody works at, and what was posted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from perdure import Host, ProcessContext, WorkerOptions
from perdure.model.leases import Owner
from perdure.transitions.commands import RequestAbandon
from tests.postgres.looks import doctor, looked_at, named, troubles
from tests.postgres.server import server_url
from tests.postgres.shops import approve, own, shop
from tests.postgres.worlds import run, world


def test_owners_are_told_apart_by_proof_and_runs_of_the_dead_are_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.registry.enrol(Owner("a", "a-1"))
            await w.register("mine")
            await w.claim("a")
            alive = named(await looked_at(w), "owner")
            assert (alive.state, alive.detail.partition(":")[0]) == ("ok", "a (a-1) is alive, 1 lease")

            await w.sql.execute(
                f'UPDATE "{w.schema}".owners SET identity = '
                "jsonb_set(identity::jsonb, '{pid_start}', '1')::text"  # another program had its pid before
            )
            found = await looked_at(w)
            assert "a (a-1) is dead, 1 lease: pid_reused" in named(found, "owner").detail
            assert named(found, "leases").detail == "1 run waits for a worker: mine"
            assert troubles(found) == {"owner": "warn", "leases": "warn"}

            await w.sql.execute(
                f"UPDATE \"{w.schema}\".owners SET identity = jsonb_set(identity::jsonb, '{{host}}', '\"far\"')::text"
            )
            assert "is unproven, 1 lease" in named(await looked_at(w), "owner").detail

    run(test())


def test_an_owner_in_another_program_of_this_machine_is_seen_alive(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.registry.enrol(Owner("a", "a-1"))
            found = await asyncio.to_thread(doctor, url=f"{server_url()}?schema={w.schema}")
            assert f"a (a-1) is alive, 0 leases: pid {os.getpid()} on" in found.stdout

    run(test())


def test_a_lapsed_run_that_nobody_may_enter_again_needs_a_decision(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("bound", recovery="owner_bound")
            await w.claim("a")
            await w.lapse("bound")
            found = await looked_at(w)
            attention = named(found, "attention")
            assert (attention.state, attention.detail.startswith("bound needs_abandon")) == ("fail", True)
            assert "perdure abandon bound" in attention.fix

    run(test())


def test_a_run_that_a_drain_has_given_back_waits_for_a_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            host = Host(f"{server_url()}?schema={w.schema}", options=WorkerOptions(drain_grace_ms=0))
            entered = asyncio.Event()

            @host.process(recovery="rerunnable")
            async def long(ctx: ProcessContext) -> None:
                entered.set()
                await asyncio.Event().wait()

            async with host:
                await host.start(long, id="long")
                await entered.wait()
            assert (await w.registry.get("long")).status == "running"
            found = await looked_at(w)
            assert named(found, "leases").detail == "1 run waits for a worker: long"
            assert troubles(found) == {"leases": "warn"}

    run(test())


def test_a_lapsed_run_that_is_to_be_abandoned_is_not_said_to_run_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("bound", recovery="owner_bound")
            await w.register("again")
            await w.claim("a")
            await w.registry.execute(RequestAbandon(process_id="bound", by="ann", reason="it is lost"))
            await w.lapse("bound", "again")
            found = await looked_at(w)
            assert [check.detail for check in found if check.name == "leases"] == [
                "1 run waits for a worker: again", "1 run that nobody works at is to be abandoned: bound",
            ]  # fmt: skip
            assert troubles(found) == {"leases": "warn"}

    run(test())


def test_a_signal_that_is_posted_and_not_delivered_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path, work=False) as s:
            await s.host.start(s.await_approval, id="order")
            async with own() as mine:
                await s.host.get_handle("order").signal(approve, "yes", id="one", connection=mine.connection)
                await mine.commit()
            posted = named(await looked_at(s.w), "posted")
            assert (posted.state, posted.detail) == ("warn", "1 signal waits for delivery, first to order")

    run(test())
