"""A caller who holds a transaction with a start and a signal holds nobody up: not the target, not those beside it."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from lab.holder import define_held, stop
from perdure import Host, WorkerOptions
from perdure.errors import UnknownProcess
from tests.postgres.server import server_url
from tests.postgres.worlds import run, until, world

RENEWALS, STEPS, OTHERS = 4, 40, 40
"""How many of each are seen while the transaction is held."""


def test_the_target_keeps_its_lease_and_its_steps_and_others_go_on_while_it_is_held(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            options = WorkerOptions(lease_ttl_ms=1_200, renew_every_ms=300, drain_grace_ms=0)
            host = Host(f"{server_url()}?schema={w.schema}", options=options)
            peer = Host(f"{server_url()}?schema={w.schema}", options=options)

            small, busy = define_held(host)
            peer.add(small)  # only the first host can run the target
            async with host, peer:
                target = await host.start(busy, id="target")

                async def is_running() -> bool:
                    return await target.status() == "running"

                await until(is_running, "the target runs")
                holder = await asyncpg.connect(server_url())
                transaction = holder.transaction()
                await transaction.start()
                held = await host.start(small, id="held", connection=holder)
                await target.signal(stop, "stopped", connection=holder)

                expiries, others = set[int](), 0
                begun = (await target.record()).state
                assert begun.started is not None

                async def seen_enough() -> bool:
                    nonlocal others
                    lease = await w.registry.get_lease("target")
                    assert lease is not None
                    expiries.add(lease.expires_at_ms)
                    runs = [await host.start(small), await peer.start(small)]
                    others += len([await run.result() for run in runs])
                    steps = (await target.record()).state.last_sequence - begun.last_sequence
                    return len(expiries) > RENEWALS and steps >= STEPS and others >= OTHERS

                await until(seen_enough, "renewals, steps and others while the transaction is held")
                with pytest.raises(UnknownProcess):
                    await held.record()
                now = (await target.record()).state
                assert (now.status, now.started) == ("running", begun.started)
                await transaction.commit()
                await holder.close()
                assert await held.result() == "done"
                assert await target.result() == "stopped"
                ended = await target.record()
                assert (ended.state.deaths, ended.state.attempt) == (0, 1)

    run(test())
