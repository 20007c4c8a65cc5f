"""Durations as users give them: a timedelta, or a number of seconds."""

from __future__ import annotations

import math
from datetime import timedelta

from perdure.errors import InvalidOption


def seconds(duration: timedelta | float) -> float:
    """A duration in seconds. Raises InvalidOption for what is none: a text, a bool, NaN, or an infinity."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not math.isfinite(duration):
        raise InvalidOption("duration", duration, "a timedelta, or a number of seconds")
    return float(duration)


def milliseconds(duration: timedelta | float) -> int:
    """The same in whole milliseconds."""
    return round(seconds(duration) * 1000)
