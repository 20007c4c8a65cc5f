"""The virtual clock and the seeded ids behave as the ports they stand in for."""

from __future__ import annotations

import asyncio

import pytest

from perdure.clock import Clock, Moment
from perdure.errors import WrongHostUse
from perdure.ids import Ids, check_process_id
from perdure.testing.clock import SeededIds, VirtualClock
from perdure.testing.loop import run_simulation


def test_both_scales_follow_the_loop_and_part_only_when_told() -> None:
    clock = VirtualClock()
    port: Clock = clock

    async def main() -> None:
        await port.sleep(1.5)
        assert port.now() == Moment(1_700_000_001_500, 1_001_500, "boot-1")
        clock.step_wall(-60_000)
        assert port.now() == Moment(1_699_999_941_500, 1_001_500, "boot-1")
        clock.reboot()
        await port.sleep(0.25)
        assert port.now() == Moment(1_699_999_941_750, 250, "boot-2")

    run_simulation(main)
    assert clock.now() == Moment(1_699_999_941_750, 250, "boot-2")  # time stays when the loop is gone


def test_a_sleep_of_whole_milliseconds_is_seen_whole() -> None:
    clock = VirtualClock(0, 0)

    async def main() -> list[int]:
        seen = []
        for _ in range(2000):
            await clock.sleep(0.1)
            seen.append(clock.now().wall_ms)
        return seen

    assert run_simulation(main) == [100 * (n + 1) for n in range(2000)]


def test_outside_a_simulation_a_test_moves_the_clock() -> None:
    clock = VirtualClock()
    clock.advance(2)
    assert clock.now() == Moment(1_700_000_002_000, 1_002_000, "boot-1")

    with pytest.raises(WrongHostUse):
        asyncio.run(clock.sleep(1))


def test_a_second_simulation_goes_on_where_the_first_ended() -> None:
    clock = VirtualClock(0, 0)

    async def main() -> int:
        await asyncio.sleep(10)
        return clock.now().wall_ms

    assert [run_simulation(main), run_simulation(main)] == [10_000, 20_000]


def test_seeded_ids_are_valid_ordered_unique_and_repeatable() -> None:
    def draw(ids: Ids) -> tuple[list[str], list[str], float]:
        return [ids.process_id() for _ in range(20)], [ids.token() for _ in range(20)], ids.fraction()

    processes, tokens, fraction = draw(SeededIds(5))
    assert draw(SeededIds(5)) == (processes, tokens, fraction)
    assert processes[0] == "p-000001"
    assert [check_process_id(name) for name in sorted(processes)] == processes
    assert len(set(tokens)) == 20
    assert tokens[0].startswith("tok-000001-")
    assert 0 <= fraction < 1
    assert draw(SeededIds(6))[1] != tokens
