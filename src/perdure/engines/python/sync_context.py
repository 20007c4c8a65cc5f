"""The context of plain `def` processes: the same operations as blocking calls, from the thread that runs the code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, Unpack, overload
from uuid import UUID

from perdure.contract.ports import Suspended
from perdure.engines.command.request import CommandOptions, CommandResult
from perdure.engines.python.children import ChildHandle
from perdure.engines.python.context import ContextFacts, ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.operations import Operation
from perdure.engines.python.signals import Signal
from perdure.model.events import Event
from perdure.model.registration import ParentEnd, RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
PayloadT = TypeVar("PayloadT")


class SyncContext(ContextFacts):
    """Handed to every plain `def` process as its first argument. `later` makes operations for `gather` and `race`."""

    def __init__(self, later: ProcessContext) -> None:
        super().__init__(later.execution)
        self.later = later
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[Any] | None = None

    def interrupt(self) -> None:
        """End the blocking call that is under way. Event loop only."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _block(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do it on the loop and wait for it here; what it raises is raised here, also what must not pass a task."""

        async def perform() -> tuple[R | None, BaseException | None]:
            self._waiting = asyncio.current_task()
            assert self._waiting is not None
            self.later.guard.admit(self._waiting)
            try:
                return await work(), None
            except (Exception, asyncio.CancelledError, Suspended) as error:
                return None, error
            finally:
                self._waiting = None

        value, error = asyncio.run_coroutine_threadsafe(perform(), self._loop).result()
        if isinstance(error, asyncio.CancelledError) and self._run.cancel_reason is not None:
            self._execution.told = True
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # without an error it is the value

    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        key: str,
        retry: RetryPolicy | None = ...,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        key: str,
        retry: RetryPolicy | None = ...,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        retry: RetryPolicy,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        retry: RetryPolicy,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        transactional: bool,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        transactional: bool,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        timeout: timedelta | float,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        timeout: timedelta | float,
        **kwargs: Any,
    ) -> R: ...
    @overload
    def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def step(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    def step(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See ProcessContext.step."""
        return self._block(lambda: _done(self.later.step(function, *args, **kwargs)))

    def sleep(self, duration: timedelta | float, *, key: str | None = None) -> None:
        """See ProcessContext.sleep."""
        self._block(lambda: _done(self.later.sleep(duration, key=key)))

    def wait(
        self, signal: Signal[PayloadT], *, timeout: timedelta | float | None = None, key: str | None = None
    ) -> PayloadT:
        """See ProcessContext.wait."""
        return self._block(lambda: _done(self.later.wait(signal, timeout=timeout, key=key)))

    def start(
        self, process: Process[InputT, OutputT], value: InputT | None = None, *, key: str | None = None,
        parent_end: ParentEnd = "cancel",
    ) -> ChildHandle[OutputT]:  # fmt: skip
        """See ProcessContext.start; wait for the child with `ctx.result(child)`."""
        return self._block(lambda: _done(self.later.start(process, value, key=key, parent_end=parent_end)))

    def command(
        self, argv: Sequence[str], *, key: str | None = None, parent_end: ParentEnd = "cancel",
        **options: Unpack[CommandOptions],
    ) -> ChildHandle[CommandResult]:  # fmt: skip
        """See ProcessContext.command; wait for it with `ctx.result(command)`."""
        return self._block(lambda: _done(self.later.command(argv, key=key, parent_end=parent_end, **options)))

    def result(self, child: ChildHandle[OutputT]) -> OutputT:
        """The value the child returned, once it has."""
        return self._block(lambda: _done(child.result()))

    def gather(self, *operations: Operation[Any]) -> list[Any]:
        """See ProcessContext.gather: `ctx.gather(ctx.later.step(f, 1), ctx.later.step(f, 2))`."""
        return self._block(lambda: self.later.gather(*operations))

    def race(self, *operations: Operation[Any]) -> tuple[int, Any]:
        """See ProcessContext.race."""
        return self._block(lambda: self.later.race(*operations))

    def emit(self, event_type: str, payload: Any = None, *, key: str | None = None) -> Event:
        """See ProcessContext.emit."""
        return self._block(lambda: self.later.emit(event_type, payload, key=key))

    def now(self) -> datetime:
        """See ProcessContext.now."""
        return self._block(lambda: _done(self.later.now()))

    def uuid(self) -> UUID:
        """See ProcessContext.uuid."""
        return self._block(lambda: _done(self.later.uuid()))

    def random(self) -> float:
        """See ProcessContext.random."""
        return self._block(lambda: _done(self.later.random()))

    def version(self, change_id: str, newest: int = 2) -> int:
        """See ProcessContext.version."""
        return self._block(lambda: self.later.version(change_id, newest))


async def _done(operation: Operation[R]) -> R:
    return await operation
