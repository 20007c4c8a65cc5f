"""Signals: named, typed messages to a process."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from perdure.errors import InvalidOption
from perdure.transitions.registering import NAME, NAME_RULE
from perdure.values import ValueType, value_type

PayloadT = TypeVar("PayloadT")


class Signal(Generic[PayloadT]):
    """A kind of message: its name, and the type of its payload. Declare it once, use it on both sides.

    approve = Signal("approve", Decision)
    decision = await ctx.wait(approve)                       # in the process
    await handle.signal(approve, Decision(ok=True))          # anywhere else
    """

    def __init__(self, name: str, payload: type[PayloadT]) -> None:
        if not NAME.fullmatch(name):
            raise InvalidOption("signal", name, NAME_RULE)
        self.name = name
        self.type: ValueType[Any] = value_type(payload, definition=f"signal {name}")

    def __repr__(self) -> str:
        return f"<Signal {self.name}>"
