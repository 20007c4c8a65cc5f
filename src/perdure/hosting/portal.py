"""The host for callers without async: scripts, Django, notebooks. One event loop in one thread, and blocking calls.

There is no second implementation: every verb here is the async one of Host or Handle, done on the portal's loop.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar, Unpack, overload

from perdure.engines.python.definitions import Process
from perdure.errors import WrongHostUse
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.hosting.sync_handle import SyncHandle
from perdure.runtime.spawner import Spawner, WorkThread
from perdure.runtime.worker import Drained
from perdure.stores.postgres.drivers import needs_a_loop
from perdure.stores.without_waiting import run_without_waiting

P = ParamSpec("P")
T = TypeVar("T")
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
PayloadT = TypeVar("PayloadT")

NOT_OPEN = "this portal is not open: use it inside `with host.sync as portal:`, or call portal.open() first"
OWN_LOOP = "this is the portal's own event loop, which a blocking call would stop: await the Host's verbs here"
FORKED = "this portal was opened before a fork, and its thread is in the other program: open one after the fork"
FOREIGN_LOOP = (
    "this connection belongs to an event loop, and the portal blocks: give one of a driver that blocks, or await the "
    "Host's verb on that loop"
)
CLOSED_MEANWHILE = "the portal was closed during this call. What was committed stands, and no process was harmed."


class StartOptions(TypedDict, total=False):
    """The options of Host.start."""

    id: str | None
    delay: timedelta | float | None
    deadline: timedelta | float | None
    priority: int
    queue: str | None
    label: str | None
    connection: object | None


def _on_host(verb: Callable[Concatenate[Host, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Portal, P], T]:
    def blocking(portal: Portal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return portal.call(verb, portal.host, *args, **kwargs)

    functools.update_wrapper(blocking, verb)
    return blocking


def _starting(
    verb: Callable[Concatenate[Host, P], Coroutine[Any, Any, Handle[T]]],
) -> Callable[Concatenate[Portal, P], SyncHandle[T]]:
    def blocking(portal: Portal, /, *args: P.args, **kwargs: P.kwargs) -> SyncHandle[T]:
        return SyncHandle(portal, portal.call(verb, portal.host, *args, **kwargs))

    functools.update_wrapper(blocking, verb)
    return blocking


class Portal:
    """The verbs of a Host as blocking calls, from any number of threads.

        with host.sync as portal:
            run = portal.start(greet, "world", id="greeting-1")
            print(run.result(timeout=30))

    Opening starts one thread with one event loop and opens the host there; closing drains like the async host and
    joins the thread. `async def` processes run on that loop, plain ones in the host's threads.

    Where there is no block: `portal = host.sync.open()` and, at the end, `portal.close()`. A server that forks opens
    its portal after the fork.
    """

    def __init__(self, host: Host, spawner: Spawner) -> None:
        self.host, self._spawner = host, spawner
        self._lock = threading.RLock()  # re-entered if the collector closes an iterator of events in the middle
        self._calls: set[Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: WorkThread | None = None
        self._thread_id: int | None = None
        self._pid = 0
        self._closing = False
        self._grace: timedelta | None = None
        self._ended: Future[tuple[Drained, ...]] = Future()

    # --- opening and closing ----------------------------------------------------------------------------------

    def open(self) -> Portal:
        """Open the host on a thread of this portal's own. Raises what Host.open raises; nothing is left behind then."""
        if self._thread is not None:
            raise WrongHostUse("this portal is open already; close it first, or take another host")
        opened: Future[None] = Future()
        ended: Future[tuple[Drained, ...]] = Future()
        self._ended, self._closing, self._pid = ended, False, os.getpid()
        try:
            self._thread = self._spawner.start_thread(lambda: self._run(opened, ended), "perdure-portal")
            if self._thread is None:
                raise WrongHostUse("a portal needs a thread, and this host's spawner has none: use the async verbs")
            opened.result()
        except BaseException:
            self.close()
            raise
        return self

    def close(self, *, grace: timedelta | None = None) -> tuple[Drained, ...]:
        """Drain and close the host (see Host.close), then end the thread. Safe to call twice.

        Calls of other threads that still wait when the host has closed raise WrongHostUse.
        """
        thread, ended = self._thread, self._ended
        if thread is None or self._pid != os.getpid():  # after a fork the other program closes it
            return ()
        if self._thread_id == threading.get_ident():
            raise WrongHostUse(OWN_LOOP)
        with self._lock:
            self._closing, self._grace = True, grace
            if self._loop is not None and self._stopping is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        self._thread = None
        return ended.result()

    def __enter__(self) -> Portal:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, opened: Future[None], ended: Future[tuple[Drained, ...]]) -> None:
        """The thread: a loop that lives as long as the portal is open. Whoever waits for it learns how it ended."""
        try:
            ended.set_result(asyncio.run(self._live(opened)))
        except BaseException as error:
            if opened.done():
                ended.set_exception(error)
            else:
                ended.set_result(())  # it was never open: there is one error, and open() raises it
                opened.set_exception(error)

    async def _live(self, opened: Future[None]) -> tuple[Drained, ...]:
        await self.host.open()
        with self._lock:
            self._loop, self._thread_id = asyncio.get_running_loop(), threading.get_ident()
            self._stopping = asyncio.Event()
            if self._closing:  # whoever opened it was interrupted, and is waiting for this thread to end
                self._stopping.set()
        opened.set_result(None)
        try:
            await self._stopping.wait()
            return await self.host.close(grace=self._grace)
        finally:
            await self.host.close()  # changes nothing unless the loop is torn down from outside
            await self._end_calls()

    async def _end_calls(self) -> None:
        """Take no more calls, and end those that wait. The turn at the end lets calls that were handed over begin: what
        has begun is cancelled by the end of the loop, and what hasn't would wait for ever."""
        with self._lock:
            loop, self._loop, self._thread_id = self._loop, None, None
            waiting = tuple(self._calls)
        for call in waiting:
            call.cancel()
        assert loop is not None
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn

    # --- calls ------------------------------------------------------------------------------------------------

    def call(self, verb: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do any coroutine function on the portal's loop and wait for it."""
        return self.wait(functools.partial(verb, *args, **kwargs), None, "the call")

    def wait(self, verb: Callable[[], Coroutine[Any, Any, T]], timeout: float | None, subject: str) -> T:
        """The same with a bound, in seconds: raises TimeoutError, and only the waiting is given up."""
        call = self.submit(verb)
        try:
            done, _ = wait({call}, timeout)
        except BaseException:  # this thread is interrupted: nobody waits for the call any more
            call.cancel()
            raise
        if not done:
            call.cancel()
            raise TimeoutError(f"{subject} has not ended within {timeout} s. It goes on; wait again as you like.")
        if call.cancelled():
            raise WrongHostUse(CLOSED_MEANWHILE)
        return call.result()

    def submit(self, verb: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have it done on the portal's loop without waiting for it."""
        with self._lock:
            loop = self._usable_loop()
            call = asyncio.run_coroutine_threadsafe(verb(), loop)
            self._calls.add(call)
        call.add_done_callback(self._forget)
        return call

    def _usable_loop(self) -> asyncio.AbstractEventLoop:
        """Under the lock. Raises WrongHostUse where a call can't be made."""
        if self._thread_id == threading.get_ident():
            raise WrongHostUse(OWN_LOOP)
        if self._loop is None:
            raise WrongHostUse(NOT_OPEN)
        if self._pid != os.getpid():
            raise WrongHostUse(FORKED)
        return self._loop

    def join(self, verb: Callable[[], Coroutine[Any, Any, T]], connection: object) -> T:
        """Do a verb that takes part in the caller's transaction: on the thread that has the connection, this one."""
        with self._lock:
            self._usable_loop()
        if needs_a_loop(connection):
            raise WrongHostUse(FOREIGN_LOOP)
        return run_without_waiting(verb(), lambda: WrongHostUse(FOREIGN_LOOP))

    def _forget(self, call: Future[Any]) -> None:
        with self._lock:
            self._calls.discard(call)

    # --- the verbs of Host ------------------------------------------------------------------------------------

    @overload
    def start(self, process: Process[None, OutputT], **options: Unpack[StartOptions]) -> SyncHandle[OutputT]: ...
    @overload
    def start(
        self, process: Process[InputT, OutputT], value: InputT, **options: Unpack[StartOptions]
    ) -> SyncHandle[OutputT]: ...
    def start(self, process: Process[Any, Any], value: Any = None, **options: Unpack[StartOptions]) -> SyncHandle[Any]:
        """See Host.start. A connection is used on this thread."""
        if (connection := options.get("connection")) is not None:
            return SyncHandle(self, self.join(lambda: self.host.start(process, value, **options), connection))
        return SyncHandle(self, self.wait(lambda: self.host.start(process, value, **options), None, "the start"))

    def start_many(
        self, process: Process[InputT, OutputT], values: Iterable[InputT], **options: Any
    ) -> list[SyncHandle[OutputT]]:
        """See Host.start_many; the options are its own."""
        handles = self.wait(lambda: self.host.start_many(process, values, **options), None, "the start")
        return [SyncHandle(self, handle) for handle in handles]

    @overload
    def get_handle(self, id: str) -> SyncHandle[Any]: ...
    @overload
    def get_handle(self, id: str, process: Process[Any, OutputT]) -> SyncHandle[OutputT]: ...
    def get_handle(self, id: str, process: Process[Any, Any] | None = None) -> SyncHandle[Any]:
        """See Host.get_handle."""
        if self._loop is None:
            raise WrongHostUse(NOT_OPEN)
        return SyncHandle(self, self.host.get_handle(id) if process is None else self.host.get_handle(id, process))

    command = _starting(Host.command)
    shell = _starting(Host.shell)
    register_external = _starting(Host.register_external)
    complete = _on_host(Host.complete)
    record_departure = _on_host(Host.record_departure)
    claim_and_run_pending = _on_host(Host.claim_and_run_pending)
    list = _on_host(Host.list)
