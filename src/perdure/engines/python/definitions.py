"""Process definitions: functions with a name, a version, types at both ends, and a declared recovery."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec

from perdure.canonical import encode
from perdure.durations import milliseconds
from perdure.engines.python.code import PythonCode, code_of
from perdure.engines.python.signals import Signal
from perdure.errors import InvalidDefinition, InvalidOption
from perdure.model.registration import Definition, Recovery, RetryPolicy
from perdure.values import ValueType, value_type

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

RECOVERY_CHOICES = (
    "Declare what may happen if the worker dies in the middle of it: recovery='rerunnable' (another worker runs it "
    "again from the start; choose it if running twice is safe) or recovery='owner_bound' (once entered it is never "
    "entered again; an operator ends it with an abandon request)."
)


def Retry(
    max_attempts: int = 3,
    *,
    initial: timedelta = timedelta(seconds=1),
    factor: float = 2.0,
    maximum: timedelta = timedelta(hours=1),
    jitter: float = 0.1,
    non_retryable: tuple[type[BaseException] | str, ...] = (),
) -> RetryPolicy:
    """How often and when a process whose code raised is started again.

    `max_attempts` counts all starts that may raise (1 to 1,000,000). The delays grow from `initial` by `factor` up to
    `maximum`, each spread by `jitter` (0 to 1) of itself. Types in `non_retryable` fail at once. An exception with a
    false `retryable` attribute does too.
    """
    names = tuple(kind if isinstance(kind, str) else kind.__name__ for kind in non_retryable)
    return RetryPolicy(max_attempts, milliseconds(initial), factor, milliseconds(maximum), jitter, names)


class Process(Generic[InputT, OutputT]):
    """One definition of a process, made by `@host.process(...)`. Calling it calls the plain function."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        version: int,
        recovery: Recovery,
        retry: RetryPolicy | None,
        max_deaths: int | None,
        timeout_ms: int | None,
        queue: str,
        input_type: ValueType[Any] | None,
        output_type: ValueType[Any],
        signals: Sequence[Signal[Any]] = (),
    ) -> None:
        self.function = function
        self.definition = Definition("python", name, version)
        self.recovery: Recovery = recovery
        self.retry, self.max_deaths, self.timeout_ms, self.queue = retry, max_deaths, timeout_ms, queue
        self.input_type, self.output_type = input_type, output_type
        self.signals = tuple(signals)
        self.signal_schemas = {signal.name: msgspec.Raw(encode(signal.type.json_schema())) for signal in self.signals}
        self.code: PythonCode = code_of(function, name, input_type, output_type)
        self.__name__ = name
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        return self.definition.name

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __repr__(self) -> str:
        return f"<Process {self.definition} {self.recovery}>"


def define(
    function: Callable[..., Any],
    *,
    name: str | None,
    version: int,
    recovery: Recovery | None,
    retry: RetryPolicy | None,
    max_deaths: int | None,
    timeout: timedelta | None,
    queue: str,
    signals: Sequence[Signal[Any]] = (),
) -> Process[Any, Any]:
    """Read the function's signature and make its definition; everything wrong with it is said now, at import."""
    name = name or str(getattr(function, "__name__", "process"))
    if recovery is None:
        raise TypeError(f"process {name!r} does not declare its recovery. {RECOVERY_CHOICES}")
    if recovery not in ("rerunnable", "owner_bound"):
        raise InvalidOption("recovery", recovery, f"'rerunnable' or 'owner_bound'. {RECOVERY_CHOICES}")
    if recovery == "owner_bound" and retry is not None:
        raise InvalidOption("retry", retry, "none with recovery='owner_bound': it is never entered twice")
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if not 1 <= len(parameters) <= 2:
        raise InvalidDefinition(name, "a process takes the context and at most one input value: (ctx) or (ctx, value)")
    hints = _hints(function, name)
    input_type = None
    if len(parameters) == 2:
        input_type = value_type(hints.get(parameters[1].name, Any), definition=name)
    return Process(
        function,
        name=name,
        version=version,
        recovery=recovery,
        retry=retry,
        max_deaths=max_deaths,
        timeout_ms=None if timeout is None else milliseconds(timeout),
        queue=queue,
        input_type=input_type,
        output_type=value_type(hints.get("return", Any), definition=name),
        signals=(*signals, *(s for s in signals_used(function) if s.name not in {given.name for given in signals})),
    )


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise InvalidDefinition(
            name, f"an annotation can't be resolved: {error}. Define the types at module level."
        ) from error


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """What the enclosing functions have given it so far: the process itself, if it starts itself, comes later."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def signals_used(function: Callable[..., Any]) -> tuple[Signal[Any], ...]:
    """The signals that a function's code names: module-level ones and those of enclosing functions."""
    found: dict[str, Signal[Any]] = {}
    codes = [function.__code__] if hasattr(function, "__code__") else []
    names = {**getattr(function, "__globals__", {}), **(_closure(function) if codes else {})}
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
        for name in (*code.co_names, *code.co_freevars):
            value = names.get(name)
            if isinstance(value, Signal):
                found[value.name] = value
    return tuple(found.values())
