"""The function of one definition, and the types at its two ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perdure.errors import InvalidDefinition
from perdure.values import ValueType


@dataclass(frozen=True, slots=True)
class PythonCode:
    """`input` is None if the function takes no value."""

    function: Callable[..., Any]
    is_async: bool
    input: ValueType[Any] | None
    output: ValueType[Any]


def code_of(
    function: Callable[..., Any], name: str, input_type: ValueType[Any] | None, output_type: ValueType[Any]
) -> PythonCode:
    if asyncio.iscoroutinefunction(function):
        return PythonCode(function, True, input_type, output_type)
    if not callable(function):
        raise InvalidDefinition(name, f"{function!r} is not a function")
    return PythonCode(function, False, input_type, output_type)
