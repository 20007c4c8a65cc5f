"""The store's own event loop, in a thread of its own: the user's loop may stand still while a transaction is open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar

from perdure.clock import SystemClock

T = TypeVar("T")


class OwnLoop:
    """Runs from `start` until `stop`. Tasks are kept referenced; their errors are for whoever awaits them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._clock = SystemClock()
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._thread = threading.Thread(target=self._run, name="perdure-postgres", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._ended.set_result(None)

    def call(self, work: Coroutine[Any, Any, T]) -> ThreadFuture[T]:
        """Have it done on this loop; from any thread."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def soon(self, what: Callable[..., None], *arguments: Any) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(what, *arguments)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """On this loop only."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def pause(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def now_s(self) -> float:
        return self._loop.time()

    def stop(self) -> ThreadFuture[None]:
        """From another thread, when nothing is under way any more. The future is done when the thread ends."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        return self._ended
