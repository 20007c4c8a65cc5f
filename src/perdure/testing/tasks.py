"""Numbered tasks and futures: the same program makes the same sets in the same order in every run."""

from __future__ import annotations

import asyncio
import asyncio.tasks
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.testing.loop import SimulationLoop


class SimulatedFuture(asyncio.Future[Any]):
    """A future that hashes to its number."""

    def __init__(self, *, loop: SimulationLoop) -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


# The Python implementation of Task, because the loop must see which handle is a step of which task.
class SimulatedTask(asyncio.tasks._PyTask):  # type: ignore[name-defined,misc]
    """A task that hashes to its number, knows who started it, and can be killed."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: SimulationLoop, **options: Any) -> None:
        self.number = loop.next_number()
        self.killed = False
        self.started_by = asyncio.current_task(loop) if loop.is_running() else None
        if options.get("name") is None:
            options["name"] = f"task-{loop.next_task_number()}"
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number

    def set_name(self, value: object) -> None:
        if value is not None:  # some versions of create_task name every task, with None too
            super().set_name(value)

    def cancel(self, msg: Any = None) -> bool:
        return False if self.killed else bool(super().cancel(msg))

    def position(self) -> str:
        """The task's name and the chain of lines it waits at, outermost first."""
        places, awaited = [], self.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
            if frame is not None:
                places.append(f"{awaited.__qualname__} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})")
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        return f"{self.get_name()} at {' > '.join(places)}"


def stepped_task(handle: Any) -> SimulatedTask | None:
    """The task that this handle of the loop would step, if that is what it does."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, SimulatedTask) and callback.__name__ in ("__step", "__wakeup") else None
