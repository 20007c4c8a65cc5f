"""The store's own event loop, in a thread of its own: the user's loop may stand still while a transaction is open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar

from perdure.clock import SystemClock
from perdure.errors import StoreClosed

T = TypeVar("T")


def closed(store: str) -> StoreClosed:
    return StoreClosed(store, "the store was closed", "Open it again.")


class OwnLoop:
    """Runs from `start` until `stop`. Tasks are kept referenced; their errors are for whoever awaits them. What is
    asked of it after that, or is not done by then, ends with StoreClosed."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._open, self._stopped = threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._clock = SystemClock()
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="perdure-postgres", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end_tasks())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        if self._failed is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(self._failed)

    def call(self, work: Coroutine[Any, Any, T]) -> ThreadFuture[T]:
        """Have it done on this loop; from any thread."""
        with self._open:
            if self._stopped:
                work.close()
                raise closed(self._store)
            return asyncio.run_coroutine_threadsafe(self._until_stopped(work), self._loop)

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except asyncio.CancelledError:
            if self._stopped:
                raise closed(self._store) from None
            raise

    def soon(self, what: Callable[..., object], *arguments: Any) -> None:
        """From any thread."""
        with self._open:
            if self._stopped:
                raise closed(self._store)
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

    def stop(self, last: Coroutine[Any, Any, None] | None = None) -> ThreadFuture[None]:
        """From another thread, once. `last` is done first; what is under way then is cancelled. The future is done when
        the thread ends, with the error of `last` if it had one."""
        self.soon(lambda: self.spawn(self._stop(last)))
        return self._ended

    async def _stop(self, last: Coroutine[Any, Any, None] | None) -> None:
        try:
            if last is not None:
                await last
        except Exception as error:  # for whoever waits for the end
            self._failed = error
        finally:
            with self._open:
                self._stopped = True
            self._loop.stop()

    async def _end_tasks(self) -> None:
        """Each has its first step before it is cancelled, so that it can tell whoever waits for it."""
        await self._clock.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
