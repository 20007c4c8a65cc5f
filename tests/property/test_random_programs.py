"""Random programs, crashed at random: they give what they give without a crash, and no finished step runs again."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.model.outcomes import Completed
from perdure.testing.loop import SimulationLoop
from tests.durable.simulated import Machine, simulate
from tests.property.programs import Bodies, Program, define, go, programs

ENDED_S = 5_000.0
SIGNALS = 6


async def run_program(program: Program, crashes: list[tuple[bool, int]], parking: float) -> tuple[Any, Bodies, Machine]:
    """The result; each host but the last dies before or after so many commands of its own."""
    bodies = Bodies()
    machine = Machine(
        lambda host: define(host, program, bodies), parking=parking, lease_ttl_ms=600, renew_every_ms=200,
        infrastructure_backoff_ms=10,
    )  # fmt: skip
    main = asyncio.current_task()
    assert main is not None
    machine._keep.add(main)
    async with machine.host(work=False) as starter:
        run = await starter.start(starter.find_process("work"), id="p")
        for number in range(SIGNALS):
            await run.signal(go, number)
    for before, number in crashes:
        registry = machine.registry()
        registry.dies_before, registry.dies_after = (number, None) if before else (None, number)
        await machine.serve_until_dead(registry, lambda: machine.status("p") == "completed")
        if not registry.dead:
            break
    async with machine.host():
        await machine.until(lambda: machine.status("p") == "completed", ENDED_S)
    outcome = machine.store.rows.records["p"].outcome
    assert isinstance(outcome, Completed)
    return msgspec.json.decode(outcome.value), bodies, machine


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    program=programs,
    crashes=st.lists(st.tuples(st.booleans(), st.integers(2, 25)), min_size=1, max_size=5),
    parking=st.sampled_from([0.0, 0.002, 0.3, 100.0]),
    seed=st.integers(0, 3),
)
def test_a_program_that_is_crashed_at_random_gives_what_it_gives_without_a_crash(
    program: Program, crashes: list[tuple[bool, int]], parking: float, seed: int
) -> None:
    expected, bodies, machine = simulate(lambda: run_program(program, [], parking))
    assert set(bodies.ended.values()) <= {1}
    found, crashed, machine = simulate(lambda: run_program(program, crashes, parking), seed=seed, shuffle=seed > 0)
    assert found == expected
    assert set(crashed.ended) == set(bodies.ended)
    assert max(crashed.ended.values(), default=1) <= 1 + machine.deaths
    ended_again = sum(crashed.ended.values()) - len(crashed.ended)
    assert ended_again <= IN_FLIGHT_AT_ONCE * machine.deaths


IN_FLIGHT_AT_ONCE = 24
"""More bodies than that can't be in flight at one crash, so no more may be run again for it."""


def test_the_simulation_of_a_crash_is_one() -> None:
    """What the property stands on: after its death a host writes nothing and runs nothing."""
    from tests.property.programs import Sleep, Step

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), SimulationLoop)
        program: Program = (Step(1, 3), Sleep(400), Step(2, 700), Step(3))
        for number in range(2, 12):
            result, bodies, machine = await run_program(program, [(False, number)], 0.002)
            assert result == [1, None, 2, 3]
            assert sum(bodies.ended.values()) <= 3 + machine.deaths

    simulate(main)
