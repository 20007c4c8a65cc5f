"""Steps: a function, its arguments and its result type, as one call that can be recorded."""

from __future__ import annotations

import contextvars
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import lru_cache
from typing import Any

import msgspec

from perdure import canonical
from perdure.durations import seconds
from perdure.engines.python.effects import StepCall
from perdure.engines.python.support import Support
from perdure.errors import InvalidOption, InvalidPayload, MisusedOperation
from perdure.model.registration import RetryPolicy
from perdure.values import ValueType, value_type

OPTIONS = frozenset({"key", "retry", "timeout", "transactional"})
"""What ctx.step takes for itself, and its function doesn't get."""
ARGUMENT_LIMITS = canonical.Limits(max_bytes=64 * 1024)
_SCALARS = frozenset({type(None), bool, int, float, str})


def step_call(
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    support: Support,
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    transactional: bool = False,
) -> tuple[StepCall, Callable[[msgspec.Raw], Any]]:
    """The call, and what makes its value from what was recorded."""
    timeout_s = None if timeout is None else seconds(timeout)
    if transactional and timeout_s is not None:
        raise InvalidOption("timeout", timeout_s, "none with transactional=True: the database bounds its transactions")
    output, is_async = step_function(function)
    bound = functools.partial(function, *args, **kwargs)
    code: Callable[..., Coroutine[Any, Any, bytes]]
    if transactional:
        code = transactional_code(function, args, kwargs, output)
    elif is_async:

        async def on_loop() -> bytes:
            return output.encode(await bound())

        code = on_loop
    else:

        async def in_thread() -> bytes:
            context = contextvars.copy_context()
            return output.encode(await support.in_thread(functools.partial(context.run, bound)))

        code = in_thread
    return StepCall(key, recorded_arguments(args, kwargs), code, retry, timeout_s, transactional), output.decode


def step_name(function: Callable[..., Any]) -> str:
    """What a step of this function is called, unless it is given a key."""
    if not callable(function):
        raise MisusedOperation(f"ctx.step takes a function and its arguments, not {function!r}: ctx.step(draft, page)")
    return getattr(function, "__name__", type(function).__name__).strip("<>")


def transactional_code(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: ValueType[Any]
) -> Callable[[Any], Coroutine[Any, Any, bytes]]:
    """The same for a function that is given the store's connection first, wherever the store calls it."""

    async def code(connection: Any) -> bytes:
        made = function(connection, *args, **kwargs)
        return output.encode(await made if inspect.isawaitable(made) else made)

    return code


@lru_cache(maxsize=4_096)
def step_function(function: Callable[..., Any]) -> tuple[ValueType[Any], bool]:
    """The type of its result, from its annotation (anything where it has none), and whether it is async."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    output = value_type(hints.get("return", Any), definition=getattr(function, "__name__", "step"))
    return output, inspect.iscoroutinefunction(function)


def recorded_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """The arguments as canonical JSON, or None if they have none that is small enough to be kept."""
    if not args and not kwargs:
        return b"[]"
    try:
        if not kwargs and _SCALARS.issuperset(map(type, args)):
            return canonical.encode(list(args), limits=ARGUMENT_LIMITS)
        plain = msgspec.to_builtins([*args, kwargs] if kwargs else list(args), str_keys=True, order="deterministic")
        return canonical.encode(plain, limits=ARGUMENT_LIMITS)
    except (TypeError, ValueError, InvalidPayload, msgspec.MsgspecError, RecursionError):
        return None
