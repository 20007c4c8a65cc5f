"""A store or an engine that fails for a while: nothing is lost, nothing fails because of it, and it is told of."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest

from perdure import Host, Process, ProcessContext
from perdure.errors import InfrastructureFailure, OutcomeUnknown, StoreUnavailable
from perdure.model.outcomes import Completed
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import Sink, elapse, holds, host_over, loop_turns, soon
from perdure.testing.faults import Delay, DelayAnswer, FailAfter, FailBefore, FaultyRegistry, from_tape, script
from perdure.testing.tape import Tape
from tests.runtime.simulated import simulate

COMMANDS = (
    "ClaimNext", "Register", "Register+ClaimNext", "Complete", "ScheduleRetry", "Release", "AppendEvent", "Renew",
    "execute_all",
)  # fmt: skip


def test_a_start_whose_answer_was_lost_runs_its_process_once() -> None:
    async def story(kit: Kit) -> None:
        plan = script({
            ("Register+ClaimNext", 1): FailAfter(), ("Register+ClaimNext", 2): FailBefore(),
            ("Register+ClaimNext", 3): FailAfter(),
        })  # fmt: skip
        store, entered = FaultyRegistry(kit.registry, plan, kit.clock), []
        host = host_over(kit, store)

        @host.process(recovery="owner_bound")
        async def work(ctx: ProcessContext) -> str:
            entered.append(ctx.process_id)
            return "done"

        async with host:
            await kit.until(holds(lambda: store.calls["next_due_at_ms"] > 0), "the opening drive is over")
            await loop_turns()
            run = await soon(host.start(work, id="p"))
            assert await soon(run.outcome()) == Completed(raw("done"))
            assert entered == ["p"]
            assert store.calls["Register+ClaimNext"] == 4

    simulate(story)


def test_a_start_that_was_refused_by_the_store_leaves_nothing_and_can_be_made_again() -> None:
    async def story(kit: Kit) -> None:
        store = FaultyRegistry(kit.registry, script({("Register+ClaimNext", 1): FailBefore()}), kit.clock)
        host = host_over(kit, store)

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext) -> str:
            return "done"

        async with host:
            await kit.until(holds(lambda: store.calls["next_due_at_ms"] > 0), "the opening drive is over")
            await loop_turns()
            with pytest.raises(StoreUnavailable):
                await host.start(work, id="p")
            assert await host.registry.count() == 0
            assert host.worker is not None
            assert host.worker.free_permits == host.options.concurrency
            assert await soon((await host.start(work, id="p")).outcome()) == Completed(raw("done"))

    simulate(story)


def test_an_engine_that_is_away_for_long_is_tried_later_each_time_and_never_fails_the_work() -> None:
    async def story(kit: Kit) -> None:
        sink = Sink()
        host, tries = host_over(kit, sink=sink), []

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext) -> str:
            tries.append(kit.now_ms)
            if len(tries) <= 8:
                raise InfrastructureFailure("the engine is away")
            return "done"

        async with host:
            run = await host.start(work, id="p")
            await elapse(kit, 600)
            assert await soon(run.outcome()) == Completed(raw("done"))
            state = (await run.record()).state
            assert (state.failures, state.deaths) == (0, 0)
        gaps = [round((later - earlier) / 1000) for earlier, later in pairwise(tries)]
        assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]
        assert [fault.kind for fault in sink.faults] == ["infrastructure"] * 8

    simulate(story)


@pytest.mark.parametrize("seed", range(40))
def test_no_fault_of_a_store_loses_work_or_runs_owner_bound_work_twice(seed: int) -> None:
    async def story(kit: Kit) -> None:
        faults = from_tape(
            Tape(seed), (FailBefore(), FailAfter(), Delay(0.3), DelayAnswer(0.7)), one_in=4, verbs=COMMANDS
        )
        store, entered = FaultyRegistry(kit.registry, faults, kit.clock), []
        host = host_over(kit, store)

        @host.process(recovery="rerunnable")
        async def again(ctx: ProcessContext, number: int) -> int:
            return number

        @host.process(recovery="owner_bound")
        async def once(ctx: ProcessContext, number: int) -> int:
            entered.append(number)
            return number

        async with host:
            for number in range(6):
                for process in (again, once):
                    await _started(host, process, number)
            await elapse(kit, 120)
            store.plan = script({})
            await elapse(kit, 60)
            for number in range(6):
                for process in (again, once):
                    outcome = await soon(host.get_handle(f"{process.name}-{number}").outcome())
                    assert outcome == Completed(raw(number))
        assert sorted(entered) == list(range(6))

    simulate(story, seed=seed)


async def _started(host: Host, process: Process[int, int], number: int) -> None:
    """Start it, again as often as the store says that it did or may not have."""
    while True:
        try:
            await host.start(process, number, id=f"{process.name}-{number}")
        except (StoreUnavailable, OutcomeUnknown):
            continue
        return


def test_the_hunt_for_lost_work_meets_every_fault_of_every_command_it_sends() -> None:
    met: set[tuple[str, str]] = set()

    async def story(kit: Kit) -> None:
        every = (FailBefore(), FailAfter(), Delay(0.1), DelayAnswer(0.1))
        store = FaultyRegistry(kit.registry, from_tape(Tape(1), every, one_in=3, verbs=COMMANDS), kit.clock)
        host = host_over(kit, store)

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext, number: int) -> int:
            return number

        async with host:
            for number in range(60):
                await _started(host, work, number)
                with suppress(StoreUnavailable):
                    await host.claim_and_run_pending("one more")
            await elapse(kit, 60)
            store.plan = script({})
        met.update(store.hits)

    simulate(story)
    faults = ("FailBefore", "FailAfter", "Delay", "DelayAnswer")
    assert met >= {(verb, fault) for verb in ("ClaimNext", "Register+ClaimNext", "Complete") for fault in faults}
