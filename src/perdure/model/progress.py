"""How far a running process says it has come: one value beside its log, the last one wins."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from perdure.errors import InvalidOption

LONGEST_NOTE = 200
LARGEST_COUNT = 2**63 - 1


class Progress(msgspec.Struct, frozen=True, gc=False):
    """`done` of `total`, in units of the process's own (`total` is None where it can't be known), and a short note.

    `attempt` and `fence` say which run said it: a later run starts over. `at_ms` is when it was said.
    """

    done: int | float
    total: int | float | None = None
    note: str = ""
    attempt: int = 0
    fence: int = 0
    at_ms: int = 0

    @property
    def fraction(self) -> float | None:
        """How much of it is done, from 0.0 to 1.0; None where no total is known, or where it is 0."""
        return min(1.0, self.done / self.total) if self.total else None


def check_count(name: str, value: Any) -> None:
    """Raise InvalidOption unless the value can be a count: a finite number from 0 to 2^63 - 1."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= LARGEST_COUNT:
        raise InvalidOption(name, value, "a finite number from 0 to 2^63 - 1")
