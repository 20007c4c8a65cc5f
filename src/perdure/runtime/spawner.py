"""Tasks and threads as a port: each has a name and an owner, and none ends unnoticed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class WorkThread(Protocol):
    """A thread that was started; its owner joins it."""

    def join(self) -> None: ...


class Spawner(Protocol):
    """Where the runtime's tasks and threads come from."""

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task and keep it referenced until it ends."""
        ...

    def spawn_kept(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """The same for a caller that keeps the task referenced by itself until it ends."""
        ...

    def as_future(self, work: Awaitable[T], name: str) -> asyncio.Future[T]:
        """The future itself, or a task for what is none yet."""
        ...

    def start_thread(self, work: Callable[[], None], name: str) -> WorkThread | None:
        """Start a daemon thread, or answer None where there are none (a simulation): do the work as a task then."""
        ...

    def in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do blocking work in a thread of this spawner's own pool; never on the loop's default executor."""
        ...

    def close(self) -> None:
        """Let the pool's idle threads go."""
        ...


def noted(task: asyncio.Task[Any]) -> None:
    """Take note of a task's error also where whoever waits for it has given up: it was theirs to report."""
    if not task.cancelled():
        task.exception()


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class LoopSpawner:
    """Tasks of the running event loop, and real threads."""

    def __init__(self, threads: int = 64) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn_kept(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def as_future(self, work: Awaitable[T], name: str) -> asyncio.Future[T]:
        if isinstance(work, asyncio.Future):
            return work
        return self.spawn(_awaited(work), name)

    def start_thread(self, work: Callable[[], None], name: str) -> WorkThread | None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="perdure-work")
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


class TaskOnlySpawner(LoopSpawner):
    """For simulations: the same tasks, and no threads."""

    def start_thread(self, work: Callable[[], None], name: str) -> WorkThread | None:
        return None

    def in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(work())
        except Exception as error:  # handed to whoever waits for the work
            done.set_exception(error)
        return done
