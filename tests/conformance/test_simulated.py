"""Waiting and driving, in the simulation: the same cases under virtual time, on many interleavings."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.conformance import Case, cases, run_case
from perdure.testing.loop import run_simulation
from tests.conformance.stores import memory_opener

MEMORY = memory_opener(Path())
CASES = [case for case in cases() if case.id.startswith(("D.", "E.")) and not case.needs]
HUNTS = [case for case in CASES if case.id in ("D.2a", "D.2b")]


def simulate(case: Case, seed: int, *, shuffle: bool) -> None:
    run_simulation(lambda: run_case(case, MEMORY, frozenset(), seed=seed), seed=seed, shuffle=shuffle)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_holds_in_virtual_time(case: Case) -> None:
    simulate(case, 0, shuffle=False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_holds_whichever_ready_task_goes_first(case: Case) -> None:
    for seed in range(1, 9):
        simulate(case, seed, shuffle=True)


@pytest.mark.parametrize("case", HUNTS, ids=str)
def test_no_wake_up_is_lost_in_five_hundred_interleavings(case: Case) -> None:
    for seed in range(500):
        simulate(case, seed, shuffle=True)
