"""What the Python engine needs of the host it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from perdure.clock import Clock
from perdure.contract.registry import Registry
from perdure.ids import Ids

PARKING_S = 2.0
"""How long a process waits in memory before it is suspended to its row."""


@dataclass(frozen=True, slots=True)
class Support:
    """The host's own parts, as the engine uses them. `listen` and `unlisten` are the change hub's."""

    registry: Registry
    clock: Clock
    ids: Ids
    listen: Callable[[str, Callable[[str], None]], None]
    unlisten: Callable[[str, Callable[[str], None]], None]
    spawn: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
    in_thread: Callable[[Callable[[], Any]], asyncio.Future[Any]]
    parking_s: float = PARKING_S
