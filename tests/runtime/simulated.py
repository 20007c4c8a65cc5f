"""Stories about the runtime, told in a simulation on the memory store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from perdure.testing.conformance import Case, Kit, run_case
from perdure.testing.loop import run_simulation
from tests.conformance.stores import memory_opener

MEMORY = memory_opener(Path())


def simulate(story: Callable[[Kit], Awaitable[None]], *, seed: int = 0, shuffle: bool = False) -> None:
    """Run the story in virtual time; afterwards every log must fold to its record."""
    told = Case("story", "a story", story)
    run_simulation(lambda: run_case(told, MEMORY, frozenset(), seed=seed), seed=seed, shuffle=shuffle)
