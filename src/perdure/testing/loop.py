"""A seeded event loop with virtual time: hours pass in milliseconds, and one tape decides everything that is open.

Rules of this file:

1. Time moves only when nothing is ready, and then straight to the next timer.
2. Nothing ready and no timer is a deadlock; more steps than the budget is a livelock. Both are reported, never hung.
3. Level 1 runs ready callbacks first in, first out, as asyncio documents. Level 2 (`shuffle`) lets the tape choose
   among ready task steps; a step never overtakes a callback that was ready before it, so asyncio's own
   bookkeeping keeps its order.
4. Tasks and futures are numbered and hash to their number, so sets of them iterate in the same order every run.
5. A killed task is never stepped again. Its frames are never freed either: freeing a suspended coroutine would run
   its `finally` blocks, which a crashed host doesn't do. A process that runs many killing seeds grows by them.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import ctypes
import functools
import gc
import heapq
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from perdure.errors import PerdureError
from perdure.testing.tape import Tape
from perdure.testing.tasks import SimulatedFuture, SimulatedTask, stepped_task

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_OUTSIDE_WORLD = (
    *("run_in_executor", "getaddrinfo", "getnameinfo", "add_signal_handler", "subprocess_exec", "subprocess_shell"),
    *("create_connection", "create_server", "create_unix_connection", "create_unix_server", "sendfile", "start_tls"),
    *("create_datagram_endpoint", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe"),
    *("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"),
    *("sock_sendall", "sock_sendto", "sock_sendfile", "add_reader", "add_writer", "remove_reader", "remove_writer"),
)


class SimulationError(PerdureError):
    """The simulated program did something a simulation can't go on from."""


class SimulationDeadlock(SimulationError):
    """Nothing is ready and no timer is set: no task can ever go on."""

    pending: tuple[str, ...]

    def __init__(self, at_s: float, pending: tuple[str, ...]) -> None:
        listed = "".join(f"\n  {line}" for line in pending) or "\n  no task at all"
        super().__init__(
            f"deadlock at {at_s} s: nothing is ready and no timer is set. Waiting:{listed}", pending=pending
        )


class SimulationLivelock(SimulationError):
    """The program made more steps than its budget."""

    max_steps: int
    pending: tuple[str, ...]

    def __init__(self, at_s: float, max_steps: int, pending: tuple[str, ...]) -> None:
        listed = "".join(f"\n  {line}" for line in pending)
        super().__init__(
            f"livelock: not finished after {max_steps} steps, at {at_s} s. Look for a loop that never waits, or "
            f"raise max_steps. Unfinished:{listed}",
            max_steps=max_steps,
            pending=pending,
        )


class NotSimulated(SimulationError):
    """The code reached for a thread, a socket, a signal or a child process."""

    asked: str

    def __init__(self, asked: str) -> None:
        super().__init__(
            f"{asked} is refused inside a simulation: it leaves virtual time. Reach the outside world through a port, "
            "and give the simulation a port of its own.",
            asked=asked,
        )


class SimulationLoop(asyncio.BaseEventLoop):
    """A single-threaded event loop with virtual time, driven by a tape. `time()` starts at 0.0 seconds."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, tape: Tape | None = None, *, shuffle: bool = False, max_steps: int = 1_000_000) -> None:
        super().__init__()
        self.tape = tape if tape is not None else Tape()
        self.max_steps = max_steps
        self.steps = 0
        self._shuffle = shuffle
        self._now = 0.0
        self._numbers = 0
        self._task_numbers = 0
        self.has_killed = False
        self._tasks: weakref.WeakSet[SimulatedTask] = weakref.WeakSet()
        self._home = threading.get_ident()
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # _PyTask is not a Task to the type checker
        for name in _OUTSIDE_WORLD:
            setattr(self, name, functools.partial(_refuse, name))

    # --- what the simulated program may ask ---

    def time(self) -> float:
        return self._now

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def next_task_number(self) -> int:
        self._task_numbers += 1
        return self._task_numbers

    def create_future(self) -> asyncio.Future[Any]:
        return SimulatedFuture(loop=self)

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Like `call_soon`. From another thread it is refused: that thread's timing is not on the tape."""
        if threading.get_ident() != self._home:
            raise NotSimulated("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def pending(self) -> list[Any]:
        """The tasks that are neither done nor killed, oldest first."""
        return sorted((task for task in self._tasks if not task.done() and not task.killed), key=hash)

    def family(self, *tasks: asyncio.Task[Any]) -> list[Any]:
        """These tasks and the pending ones they started, and so on down: usually what one host runs."""
        members = set(tasks)
        for task in self.pending():  # oldest first, so whoever started it was already looked at
            if task.started_by in members:
                members.add(task)
        return sorted(members, key=hash)

    def kill(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Crash: never step these tasks again. No `finally` of theirs runs, and nobody is told.

        The current task, if it is among them, stops at its next await. Futures and timers they made live on.
        """
        for task in tasks:
            if isinstance(task, SimulatedTask) and not task.done() and not task.killed:
                task.killed = self.has_killed = True
                asyncio.tasks._unregister_task(task)
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))  # rule 5: not even freeing may run its `finally`

    # --- how it runs ---

    def _make_task(self, loop: SimulationLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> SimulatedTask:
        task = SimulatedTask(coro, loop=loop, **options)
        self._tasks.add(task)
        return task

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise SimulationDeadlock(self._now, self._positions())
            self._now = max(self._now, self._scheduled[0]._when)
        while self._scheduled and self._scheduled[0]._when <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._take_ready()
            if handle._cancelled or _is_step_of_killed(handle):
                continue
            self.steps += 1
            if self.steps > self.max_steps:
                raise SimulationLivelock(self._now, self.max_steps, self._positions())
            handle._run()

    def _take_ready(self) -> Any:
        if not self._shuffle or stepped_task(self._ready[0]) is None:
            return self._ready.popleft()
        choices = next((i for i, handle in enumerate(self._ready) if stepped_task(handle) is None), len(self._ready))
        choice = self.tape.pick(choices)
        handle = self._ready[choice]
        del self._ready[choice]
        return handle

    def _positions(self) -> tuple[str, ...]:
        return tuple(task.position() for task in self.pending())


def _refuse(name: str, *args: object, **options: object) -> NoReturn:
    raise NotSimulated(name)


def _is_step_of_killed(handle: Any) -> bool:
    task = stepped_task(handle)
    return task is not None and task.killed


def run_simulation(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    tape: Tape | None = None,
    shuffle: bool = False,
    max_steps: int = 1_000_000,
) -> T:
    """Run `main()` to its end under virtual time and return its value; its error comes with the seed noted on it.

    A given `tape` takes the place of `seed`. What still runs after `main` is cancelled and awaited, as asyncio.run
    does. Raises SimulationDeadlock, or SimulationLivelock after `max_steps` callbacks. The garbage collector rests
    meanwhile, so that no finaliser runs at a moment the tape doesn't know.
    """
    loop = SimulationLoop(tape if tape is not None else Tape(seed), shuffle=shuffle, max_steps=max_steps)
    collecting = gc.isenabled()
    gc.disable()
    try:
        try:
            result = loop.run_until_complete(main())
        except BaseException as error:
            try:
                _cancel_leftovers(loop)
            except SimulationError as second:
                error.add_note(f"and then, while the other tasks were cancelled: {second}")
            raise
        _cancel_leftovers(loop)
        return result
    except BaseException as error:
        source = f"seed {loop.tape.seed}" if loop.tape.seed is not None else "a replayed tape"
        error.add_note(
            f"simulation: {source}, shuffle={shuffle}, at {loop.time()} s, {loop.steps} steps, "
            f"{len(loop.tape.picks)} picks"
        )
        raise
    finally:
        loop.kill(loop.pending())
        loop.close()
        if collecting:
            gc.enable()


def _cancel_leftovers(loop: SimulationLoop) -> None:
    """Cancel what still runs and wait for it, with a budget of its own for `finally` blocks."""
    leftovers = loop.pending()
    loop.max_steps = loop.steps + 100_000
    for task in leftovers:
        task.cancel()
    if leftovers:
        loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
    if not loop.has_killed:  # rule 5: closing a generator of a killed task would run its `finally`
        loop.run_until_complete(loop.shutdown_asyncgens())
    for task in leftovers:
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler(
                {"message": "unhandled exception while the simulation ended", "exception": error, "task": task}
            )
