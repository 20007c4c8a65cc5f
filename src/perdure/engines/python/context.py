"""What a process's code is given: who it is, and the durable operations it may do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, Unpack, cast, overload
from uuid import UUID

import msgspec

from perdure import canonical
from perdure.durations import milliseconds, seconds
from perdure.engines.command.request import (
    RESULT,
    CommandOptions,
    CommandResult,
    command_registration,
    program_name,
)
from perdure.engines.python.beside import Beside
from perdure.engines.python.branches import gather, race, run_branches
from perdure.engines.python.children import ChildHandle, check_parent_end, child_id, child_registration, value_of
from perdure.engines.python.definitions import Process
from perdure.engines.python.effects import Effects
from perdure.engines.python.execution import Execution
from perdure.engines.python.operations import Keys, Operation, TaskGuard, check_operations
from perdure.engines.python.signals import Signal
from perdure.engines.python.steps import OPTIONS, step_call, step_name
from perdure.errors import InvalidOption
from perdure.model.events import Event
from perdure.model.registration import ParentEnd, Registration, RetryPolicy
from perdure.values import ValueType

P = ParamSpec("P")
R = TypeVar("R")
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
PayloadT = TypeVar("PayloadT")


class ContextFacts(Beside):
    """What every context tells: facts about this execution."""

    def __init__(self, execution: Execution) -> None:
        self._execution, self._run = execution, execution.run

    @property
    def process_id(self) -> str:
        return self._run.record.registration.id

    @property
    def attempt(self) -> int:
        """Which start this is: 1 for the first. A name, not a limit."""
        return self._run.record.state.attempt

    @property
    def fence(self) -> int:
        """The fence of this execution. Give it to your own sinks: one that remembers the highest can refuse a stale
        owner."""
        return self._run.lease.fence

    @property
    def local_deadline_ms(self) -> int:
        """The boot time (CLOCK_BOOTTIME, in milliseconds) up to which this execution is covered by its lease. It
        moves on with each renewal."""
        return self._run.local_deadline_ms

    @property
    def cancel_reason(self) -> str | None:
        """Why this execution was asked to stop, or None."""
        return self._run.cancel_reason

    def check_cancelled(self) -> None:
        """Raise CancelledError if this execution was asked to stop: for code in threads, which nothing interrupts."""
        if self._execution.is_cancelled_here:
            self._execution.told = True
            raise asyncio.CancelledError(self._run.cancel_reason)


class ProcessContext(ContextFacts):
    """Handed to every `async def` process as its first argument.

    What it makes are durable operations: await one, or give several to `gather` or `race`. A finished operation is
    never done again, whatever happens to the program: on the next run the code gets what it got before.
    """

    def __init__(self, execution: Execution, scope: str = "") -> None:
        super().__init__(execution)
        self._support, self._scope = execution.support, scope
        self._made_keys: Keys | None = None

    @property
    def _effects(self) -> Effects:
        return self._execution.effects

    @property
    def execution(self) -> Execution:
        return self._execution

    @property
    def guard(self) -> TaskGuard:
        """Knows the tasks in which operations may be awaited."""
        return self._execution.guard

    @property
    def _keys(self) -> Keys:
        self._execution.check_outside_steps()
        if self._made_keys is None:
            self._made_keys = Keys(self._scope)
        return self._made_keys

    def _key(self, name: str, key: str | None) -> str:
        """The explicit key, or the name and which occurrence of it this is."""
        return self._keys.next(name) if key is None else self._keys.use(key)

    def _operation(self, name: str, key: str | None, perform: Callable[[str], Awaitable[R]]) -> Operation[R]:
        full = self._key(name, key)
        return Operation(full, lambda: perform(full), self._execution)

    # --- steps ------------------------------------------------------------------------------------------------

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
    ) -> Operation[R]: ...
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
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        retry: RetryPolicy,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        retry: RetryPolicy,
        timeout: timedelta | float | None = ...,
        transactional: bool = ...,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        transactional: bool,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        transactional: bool,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., Awaitable[R]],
        *args: Any,
        timeout: timedelta | float,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(
        self,
        function: Callable[..., R],
        *args: Any,
        timeout: timedelta | float,
        **kwargs: Any,
    ) -> Operation[R]: ...
    @overload
    def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> Operation[R]: ...
    @overload
    def step(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Operation[R]: ...
    def step(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Operation[Any]:
        """Run a function once and record what it returns; async ones on the loop, plain ones in a thread.

        Its key is its name and occurrence (`draft`, `draft#2`), or `key=`, used once: give one in loops, so that the
        code can be edited between runs. `retry=Retry(…)` tries again when it raises; `timeout=` bounds each try.

        `transactional=True` calls the function with the store's own connection before its arguments, in a transaction
        that commits what it writes together with the step's result: exactly once, whatever happens to the program. On
        SQLite it is an `apsw.Connection`, the function must be a plain one, and every other write waits for it: do
        nothing else in it. NotTransactional (as StepFailed) where the store has no connection to give.

        Raises StepFailed once its failure is recorded, ReplayMismatch if it was recorded with other arguments.
        """
        options = {option: kwargs.pop(option) for option in OPTIONS.intersection(kwargs)} if kwargs else {}
        key = self._key(step_name(function), options.pop("key", None))
        call, decode = step_call(key, function, args, kwargs, self._support, **options)

        async def perform() -> Any:
            return decode(await self._effects.run_step(call))

        return Operation(key, perform, self._execution)

    # --- waits ------------------------------------------------------------------------------------------------

    def sleep(self, duration: timedelta | float, *, key: str | None = None) -> Operation[None]:
        """Wait so long (a timedelta, or seconds) from when this was first reached, across restarts."""
        due_in_ms = milliseconds(duration)
        if due_in_ms < 0:
            raise InvalidOption("duration", duration, "0 or more")
        return self._operation("sleep", key, lambda full: self._effects.sleep_until(full, due_in_ms))

    def wait(
        self, signal: Signal[PayloadT], *, timeout: timedelta | float | None = None, key: str | None = None
    ) -> Operation[PayloadT]:
        """The next signal of this kind that no other wait has taken, sent before or after this is reached.

        Raises TimeoutError at `timeout` after it was first reached, also across restarts.
        """
        within = None if timeout is None else seconds(timeout)
        within_ms = None if within is None else round(within * 1000)

        async def perform(full: str) -> PayloadT:
            payload = await self._effects.wait_signal(full, signal.name, within_ms)
            if payload is None:
                raise TimeoutError(f"no signal {signal.name!r} within {within} s")
            return cast("PayloadT", signal.type.decode(payload))

        return self._operation(f"wait:{signal.name}", key, perform)

    # --- children ---------------------------------------------------------------------------------------------

    def start(
        self,
        process: Process[InputT, OutputT],
        value: InputT | None = None,
        *,
        key: str | None = None,
        parent_end: ParentEnd = "cancel",
    ) -> Operation[ChildHandle[OutputT]]:
        """Start a child process; its id is derived from ours, so replay finds the same child.

        `parent_end`: what becomes of it if it is live when this process ends: "cancel", "abandon" (it goes on alone),
        or "wait" (this process ends only after it).
        """

        async def perform(full: str) -> ChildHandle[OutputT]:
            registration = child_registration(self.process_id, full, process, value, parent_end)
            started = await self._start_child(full, registration)
            return ChildHandle(started, lambda: self._result_of(started, process.output_type))

        return self._operation(f"child:{process.definition.name}", key, perform)

    def command(
        self,
        argv: Sequence[str],
        *,
        key: str | None = None,
        parent_end: ParentEnd = "cancel",
        **options: Unpack[CommandOptions],
    ) -> Operation[ChildHandle[CommandResult]]:
        """Start a program of the operating system as a child process: see Host.command and `start`.

        It is owner_bound, so it is never run twice: if its worker dies, its end is not known, and it waits for an
        abandon request; `deadline` tells only a command that runs. Its result raises ProcessFailed with its exit code.
        """

        check_parent_end(parent_end)

        async def perform(full: str) -> ChildHandle[CommandResult]:
            id = child_id(self.process_id, full)
            registration = command_registration(id, argv, parent=self.process_id, parent_end=parent_end, **options)
            started = await self._start_child(full, registration)
            return ChildHandle(started, lambda: self._result_of(started, RESULT))

        return self._operation(f"child:{program_name(argv)}", key, perform)

    async def _start_child(self, key: str, registration: Registration) -> str:
        started = await self._effects.start_child(key, registration)
        if registration.parent_end == "wait":
            self._execution.awaited_children.append(started)
        return started

    def _result_of(self, child_id: str, result: ValueType[OutputT]) -> Operation[OutputT]:
        async def perform(full: str) -> OutputT:
            return value_of(child_id, await self._effects.await_child(full, child_id), result)

        return self._operation(f"result:{child_id}", None, perform)

    # --- several at once --------------------------------------------------------------------------------------

    async def gather(self, *operations: Operation[Any]) -> list[Any]:
        """Do them at once; their values in order. All of them end; then the first failure (in order) is raised."""
        check_operations(operations, "gather")
        return await gather(self._keys.next("gather"), operations, self._execution.effects, self.guard, self._support)

    async def race(self, *operations: Operation[Any]) -> tuple[int, Any]:
        """Do operations at once until one has ended: its place and its value. The others are cancelled. Which one it
        was is recorded, and so the same on replay."""
        check_operations(operations, "race")
        return await race(self._keys.next("race"), operations, self._execution.effects, self.guard, self._support)

    async def branches(self, *functions: Callable[[ProcessContext], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run several sequences of operations at once, each with a context (and key scope) of its own; their values in
        order. All of them end; then the first failure, in order, is raised."""
        key = self._keys.next("branches")
        scopes = [f"{key}[{index}]/" for index in range(len(functions))]
        contexts = [ProcessContext(self._execution, scope) for scope in scopes]
        work = [function(context) for function, context in zip(functions, contexts, strict=True)]
        return await run_branches(key, work, self._execution.effects, self.guard, self._support)

    # --- the rest ---------------------------------------------------------------------------------------------

    async def emit(self, event_type: str, payload: Any = None, *, key: str | None = None) -> Event:
        """Append an event of your own type to this process's log, durably, once: replay does not repeat it."""
        text = canonical.encode(msgspec.to_builtins(payload, str_keys=True, order="deterministic"))
        full = self._keys.next(f"event:{event_type}") if key is None else self._keys.use(key)
        return await self._effects.emit(full, event_type, msgspec.Raw(text))

    def now(self) -> Operation[datetime]:
        """The time (UTC), as it was when this was first reached."""

        async def perform(full: str) -> datetime:
            made = await self._effects.record_value(full, lambda: str(self._support.clock.now().wall_ms).encode())
            return datetime.fromtimestamp(int(bytes(made)) / 1000, UTC)

        return self._operation("now", None, perform)

    def uuid(self) -> Operation[UUID]:
        """A new UUID, the same ever after."""

        async def perform(full: str) -> UUID:
            made = await self._effects.record_value(
                full, lambda: msgspec.json.encode(UUID(int=int(self._support.ids.fraction() * 2**122), version=4))
            )
            return UUID(msgspec.json.decode(made))

        return self._operation("uuid", None, perform)

    def random(self) -> Operation[float]:
        """A random number in [0, 1), the same ever after."""

        async def perform(full: str) -> float:
            made = await self._effects.record_value(full, lambda: msgspec.json.encode(self._support.ids.fraction()))
            return float(msgspec.json.decode(made))

        return self._operation("random", None, perform)

    async def version(self, change_id: str, newest: int = 2) -> int:
        """Which version of a change to the code this process follows: `newest`, or 1 if it had passed this point
        before the change was made. Recorded once, so it is the same ever after."""
        self._execution.check_outside_steps()
        return await self._effects.mark_version(self._scope, change_id, newest)


__all__ = ["ContextFacts", "ProcessContext"]
