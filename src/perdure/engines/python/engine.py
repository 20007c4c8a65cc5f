"""Runs Python functions: `async def` on the event loop, plain `def` in a thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from perdure.contract.ports import Run
from perdure.contract.registry import Registry
from perdure.engines.python.context import ProcessContext
from perdure.errors import InvalidDefinition
from perdure.model.registration import Definition
from perdure.values import ValueType

InThread = Callable[[Callable[[], Any]], "asyncio.Future[Any]"]


@dataclass(frozen=True, slots=True)
class PythonCode:
    """The function of one definition and the types at its two ends; `input` is None if it takes no value."""

    function: Callable[..., Any]
    is_async: bool
    input: ValueType[Any] | None
    output: ValueType[Any]


class PythonEngine:
    """An engine over a table of functions. `in_thread` does blocking work on a pool that is the host's own."""

    kind = "python"

    def __init__(self, registry: Registry, in_thread: InThread, codes: dict[Definition, PythonCode]) -> None:
        self._registry, self._in_thread, self._codes = registry, in_thread, codes

    @property
    def definitions(self) -> Collection[Definition]:
        return self._codes.keys()

    def prepare(self, run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
        code = self._codes[run.record.registration.definition]
        arguments: tuple[Any, ...] = (ProcessContext(run, self._registry),)
        if code.input is not None:
            arguments += (code.input.decode(run.record.registration.input),)
        return self._run(code, arguments) if code.is_async else self._run_in_thread(code, arguments, run)

    async def _run(self, code: PythonCode, arguments: tuple[Any, ...]) -> msgspec.Raw:
        return msgspec.Raw(code.output.encode(await code.function(*arguments)))

    async def _run_in_thread(self, code: PythonCode, arguments: tuple[Any, ...], run: Run) -> msgspec.Raw:
        """A thread can't be interrupted: when told to stop, the code sees it by `ctx.check_cancelled()`.

        Its end is waited for, and its answer to the request is what it raises or returns.
        """
        context = contextvars.copy_context()
        working = self._in_thread(lambda: context.run(code.function, *arguments))
        told: asyncio.CancelledError | None = None
        while not working.done():
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError as cancelled:
                if told is not None or run.cancel_reason is None:
                    raise  # told twice: the bound for ending has passed, or the loop is going down
                told = cancelled
            except Exception:  # raised below, by result()
                break
        if working.cancelled():
            raise asyncio.CancelledError(run.cancel_reason)
        return msgspec.Raw(code.output.encode(working.result()))


def code_of(
    function: Callable[..., Any], name: str, input_type: ValueType[Any] | None, output_type: ValueType[Any]
) -> PythonCode:
    if asyncio.iscoroutinefunction(function):
        return PythonCode(function, True, input_type, output_type)
    if not callable(function):
        raise InvalidDefinition(name, f"{function!r} is not a function")
    return PythonCode(function, False, input_type, output_type)
