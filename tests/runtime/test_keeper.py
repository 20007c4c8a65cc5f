"""The lease keeper with its real thread: what a blocked event loop costs, and what it doesn't."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from perdure.contract.ports import WorkerFault
from perdure.engines.python.context import ProcessContext
from perdure.host import Host
from perdure.runtime.options import WorkerOptions
from perdure.testing.conformance.kit import Kit
from perdure.testing.conformance.world import Gate, Sink, World, elapse, loop_turns
from perdure.testing.faults import DelayAnswer, FailBefore, script
from tests.runtime.simulated import simulate

SHORT = {"lease_ttl_ms": 600, "renew_every_ms": 200, "blocked_loop_ms": 150, "infrastructure_backoff_ms": 50}
BLOCKED_S = 1.5

URLS = ["memory://", "sqlite:///{}/work.db"]


def blocks_the_loop() -> None:
    time.sleep(BLOCKED_S)  # what this file is about: code that doesn't let the loop go on


async def run_blocking(url: str, sink: Sink, **options: Any) -> tuple[list[int], Any]:
    """Run a process that blocks the loop for longer than its lease; its attempts, and its record."""
    host = Host(url, options=WorkerOptions(**{**SHORT, **options}), sink=sink)
    attempts = []

    @host.process(recovery="rerunnable")
    async def blocking(ctx: ProcessContext) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            blocks_the_loop()
            await asyncio.Event().wait() if options else None
        return "done"

    async with asyncio.timeout(30), host:
        run = await host.start(blocking)
        assert await run.result() == "done"
        record = await run.record()
    return attempts, record


def of_kind(sink: Sink, kind: str) -> list[WorkerFault]:
    return [fault for fault in sink.faults if fault.kind == kind]


@pytest.mark.parametrize("url", URLS)
def test_a_blocked_loop_does_not_lose_its_work_and_its_stack_is_told(url: str, tmp_path: Path) -> None:
    sink = Sink()
    attempts, record = asyncio.run(run_blocking(url.format(tmp_path), sink))
    assert (attempts, record.attempt, record.state.deaths) == ([1], 1, 0)
    (fault,) = of_kind(sink, "blocked_loop")
    assert "blocks_the_loop" in fault.detail
    assert not of_kind(sink, "lease_lost")


@pytest.mark.parametrize("url", URLS)
def test_a_loop_blocked_beyond_the_second_bound_lets_its_leases_go_and_says_so_once(url: str, tmp_path: Path) -> None:
    sink = Sink()
    attempts, record = asyncio.run(run_blocking(url.format(tmp_path), sink, let_go_ms=300))
    assert (attempts, record.attempt, record.state.deaths) == ([1, 2], 2, 1)
    assert len([fault for fault in of_kind(sink, "blocked_loop") if "let go" in fault.message]) == 1
    assert len(of_kind(sink, "lease_lost")) == 1


def test_a_renewal_that_comes_late_says_nothing_about_a_later_run_of_the_same_process() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        gate = Gate()
        async with World(kit, gate, plan=script({("Renew", 1): DelayAnswer(8)})) as world:
            await world.drive()
            await gate.until_entered("p")
            await elapse(kit, 5.5)  # the first renewal is on its way, and its answer is held up
            await world.worker.drain(0)
        second = Gate()
        async with World(kit, second, registry=world.registry) as again:
            await again.drive()
            await second.until_entered("p")
            await elapse(kit, 9)
            second.open("p")
            await again.ended("p")
            assert again.fault_kinds() == []

    simulate(story)


def test_an_error_that_nobody_foresaw_costs_a_renewal_and_not_the_keeper() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        gate = Gate()

        def broken(verb: str, number: int) -> None:
            if (verb, number) == ("Renew", 1):
                raise RuntimeError("a bug in a store")

        async with World(kit, gate, plan=broken) as world:
            await world.drive()
            await gate.until_entered("p")
            await elapse(kit, 60)
            gate.open("p")
            await world.ended("p")
            assert world.engine.entries == [("p", 1)]
            assert world.registry.calls["Renew"] > 5

    simulate(story)


def test_a_run_is_stopped_before_its_lease_expires_if_it_cannot_be_renewed() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        told_at_ms: list[int] = []

        async def body(run: Any) -> object:
            try:
                return await asyncio.Event().wait()
            finally:
                told_at_ms.append(kit.now_ms)

        async with World(kit, body, plan=lambda verb, number: FailBefore() if verb == "Renew" else None) as world:
            await world.drive()
            await loop_turns()
            lease = await kit.lease("p")
            await elapse(kit, 14.9)
            assert told_at_ms
            assert lease.expires_at_ms - 2_000 < told_at_ms[0] < lease.expires_at_ms
            assert (await kit.types("p")) == ["process.started"]

    simulate(story)
