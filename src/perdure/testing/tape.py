"""Chance as a tape: every decision of a simulation is one pick, so a failing run can be replayed and made smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable


class Tape:
    """A source of decisions that remembers what it decided.

    `Tape(seed)` fills itself from the seed as it is read. `Tape.replay(picks)` reads recorded picks and answers 0,
    the dull choice, past their end. In both, `picks` is what was really decided, and replaying it decides the same.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random: random.Random | None = random.Random(seed)  # noqa: S311  (a simulation must be repeatable)
        self._script: tuple[int, ...] = ()
        self.seed: int | None = seed
        self.picks: list[int] = []

    @classmethod
    def replay(cls, picks: Iterable[int]) -> Tape:
        """A tape that decides `picks`, then only 0. A pick too large for its question is taken modulo."""
        tape = cls()
        tape._random = None
        tape._script = tuple(picks)
        tape.seed = None
        return tape

    def pick(self, n: int) -> int:
        """Decide between `n` choices, 0 to n - 1; 0 is the dull one. With one choice nothing is recorded."""
        if n < 1:
            raise ValueError(f"pick({n}): there must be at least one choice")
        if n == 1:
            return 0
        position = len(self.picks)
        if self._random is not None:
            decided = self._random.randrange(n)
        else:
            decided = self._script[position] % n if position < len(self._script) else 0
        self.picks.append(decided)
        return decided


def shrink(picks: list[int], fails: Callable[[list[int]], bool], *, max_runs: int = 5_000) -> list[int]:
    """The smallest failing picks found by zeroing and deleting chunks; `fails` runs the simulation and says.

    It stops when no chunk can go any more, or after `max_runs` calls of `fails`. Raises ValueError when `picks`
    itself doesn't fail: then the run depends on something that is not on the tape.
    """
    if not fails(list(picks)):
        raise ValueError("these picks do not fail when they are replayed: the run depends on more than its tape")
    search = _Search(_without_tail(picks), fails, max_runs - 1)
    while search.round() and search.runs_left:
        pass
    return search.best


class _Search:
    """The best failing picks so far, and how many more runs may be spent on better ones."""

    def __init__(self, best: list[int], fails: Callable[[list[int]], bool], runs_left: int) -> None:
        self.best = best
        self.runs_left = runs_left
        self._fails = fails

    def round(self) -> bool:
        """Try every chunk, large ones first, from the end; True when something went away."""
        before = list(self.best)
        size = len(self.best)
        while size:
            start = len(self.best) - size
            while start > -size:
                chunk = slice(max(start, 0), start + size)
                _ = self._accept_without(chunk, [0] * len(self.best[chunk])) or self._accept_without(chunk, [])
                start = min(start, len(self.best)) - size
            size //= 2
        return self.best != before

    def _accept_without(self, chunk: slice, replacement: list[int]) -> bool:
        candidate = list(self.best)
        candidate[chunk] = replacement
        candidate = _without_tail(candidate)
        if candidate == self.best or not self.runs_left:
            return False
        self.runs_left -= 1
        if not self._fails(list(candidate)):
            return False
        self.best = candidate
        return True


def _without_tail(picks: list[int]) -> list[int]:
    """`picks` without its last zeros: past its end a tape answers 0 anyway."""
    end = len(picks)
    while end and picks[end - 1] == 0:
        end -= 1
    return picks[:end]
