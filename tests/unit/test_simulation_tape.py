"""Chance in a simulation: the same tape decides the same, and a failing tape can be made small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure.testing.loop import SimulationLoop, run_simulation
from perdure.testing.tape import Tape, shrink


def simulation() -> SimulationLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    return loop


def lost_update(workers: int = 2) -> Callable[[], Coroutine[Any, Any, None]]:
    """Writers read, yield and write; in FIFO order each one starts only when the one before is done."""

    async def main() -> None:
        counter = {"value": 0}

        async def add(turns_before: int) -> None:
            for _ in range(turns_before):
                await asyncio.sleep(0)
            seen = counter["value"]
            await asyncio.sleep(0)
            counter["value"] = seen + 1

        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(add(2 * number))
        assert counter["value"] == workers, "an update was lost"

    return main


def trace(seed: int, shuffle: bool) -> list[str]:
    lines: list[str] = []

    async def main() -> None:
        async def work(name: str) -> None:
            for step in range(4):
                lines.append(f"{name}{step}@{simulation().time()}")
                await asyncio.sleep(simulation().tape.pick(3))

        await asyncio.gather(*(work(name) for name in "abcd"))

    run_simulation(main, seed=seed, shuffle=shuffle)
    return lines


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_same_seed_gives_the_same_trace(shuffle: bool) -> None:
    assert trace(7, shuffle) == trace(7, shuffle)
    assert trace(7, shuffle) != trace(8, shuffle)


def test_fifo_hides_a_lost_update_that_shuffling_finds() -> None:
    run_simulation(lost_update())
    failing = [seed for seed in range(200) if is_lost(Tape(seed))]
    assert failing
    assert len(failing) < 200


def is_lost(tape: Tape, workers: int = 2) -> bool:
    try:
        run_simulation(lost_update(workers), tape=tape, shuffle=True)
    except AssertionError:
        return True
    return False


def test_a_tape_of_dull_choices_is_fifo() -> None:
    assert not is_lost(Tape.replay([]))


def test_replaying_the_picks_of_a_failure_fails_again_and_shrinks_to_a_few() -> None:
    tape = next(tape for seed in range(200) if is_lost(tape := Tape(seed), workers=4))

    smallest = shrink(tape.picks, lambda picks: is_lost(Tape.replay(picks), workers=4))

    assert is_lost(Tape.replay(smallest), workers=4)
    assert 1 <= sum(pick != 0 for pick in smallest) <= 3
    assert len(smallest) <= len(tape.picks)


def test_shrinking_keeps_only_the_picks_that_matter() -> None:
    picks = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9] * 20

    assert shrink(picks, lambda found: 9 in found and 7 in found[found.index(9) :]) == [9, 7]
    assert shrink(picks, lambda found: len(found) > 5 and found[5] == 9) == [0, 0, 0, 0, 0, 9]
    assert shrink([1, 2, 3], lambda found: True) == []


def test_shrinking_refuses_picks_that_do_not_fail() -> None:
    with pytest.raises(ValueError, match="more than its tape"):
        shrink([1, 2, 3], lambda picks: False)


def test_a_tape_records_its_picks_and_replays_them() -> None:
    first = Tape(11)
    decided = [first.pick(n) for n in (10, 1, 3, 1000)]

    again = Tape.replay(first.picks)
    assert [again.pick(n) for n in (10, 1, 3, 1000)] == decided
    assert [again.pick(50), again.pick(50)] == [0, 0]
    assert len(first.picks) == 3  # one choice is no decision
    with pytest.raises(ValueError, match="at least one choice"):
        first.pick(0)


def test_an_error_carries_its_seed() -> None:
    async def main() -> None:
        raise LookupError("planted")

    with pytest.raises(LookupError) as caught:
        run_simulation(main, seed=41)
    assert any("seed 41" in note for note in caught.value.__notes__)
