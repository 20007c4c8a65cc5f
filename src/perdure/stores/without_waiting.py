"""Running a coroutine to its end where there is no event loop, or none that may turn: it must never wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_without_waiting(running: Coroutine[Any, Any, T], waited: Callable[[], Exception]) -> T:
    """What a coroutine returns that never waits, on this very thread. If it does wait it is closed, and `waited` says
    what is raised."""
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    running.close()
    raise waited()
