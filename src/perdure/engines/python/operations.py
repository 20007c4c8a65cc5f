"""Durable operations as objects: made in the order the code asks for them, done when they are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from perdure.engines.python.effects import Effects
from perdure.errors import DuplicateKey, InvalidOption, MisusedOperation
from perdure.transitions.keys import check_key_text

T = TypeVar("T")

LONGEST_KEY = 350
"""Of an operation, so that with the type of an entry it is still a replay key."""


class Attended(Protocol):
    """The execution that operations belong to."""

    @property
    def guard(self) -> TaskGuard: ...

    @property
    def effects(self) -> Effects: ...


class Operation(Generic[T]):
    """One durable operation of a process: a step, a wait, a child's result. Await it, or give it to gather or race.

    Its key is fixed when it is made, so what finishes first changes nothing. It is done at most once.
    """

    __slots__ = ("_begun", "_execution", "_perform", "key")

    def __init__(self, key: str, perform: Callable[[], Awaitable[T]], execution: Attended) -> None:
        self.key, self._perform, self._execution = key, perform, execution
        self._begun = False

    def __await__(self) -> Generator[Any, None, T]:
        self._execution.guard.check(self.key)
        return self.run().__await__()

    async def run(self) -> T:
        """Do it, in a task that the context knows of."""
        if self._begun:
            raise MisusedOperation(
                f"operation {self.key!r} is awaited twice. Keep its value, or make a new operation.", key=self.key
            )
        self._begun = True
        try:
            value = await self._perform()
        except Exception:
            self._execution.effects.operation_ended()
            raise
        self._execution.effects.operation_ended()
        return value

    def __repr__(self) -> str:
        return f"<durable operation {self.key}>"


class TaskGuard:
    """Knows the tasks in which a process's code may await durable operations: its own, and those the context starts."""

    def __init__(self, main: asyncio.Task[Any]) -> None:
        self._known: set[asyncio.Task[Any]] = {main}

    def admit(self, task: asyncio.Task[Any]) -> None:
        self._known.add(task)
        task.add_done_callback(self._known.discard)

    def check(self, key: str) -> None:
        task = asyncio.current_task()
        if task not in self._known:
            raise MisusedOperation(
                f"operation {key!r} is awaited in a task of its own making: its order could not be replayed. Use "
                "ctx.gather, ctx.race or ctx.branches instead of asyncio tasks.",
                key=key,
            )


def check_operations(operations: tuple[object, ...], where: str) -> None:
    """Refuse anything but operations, with the fix."""
    others = [operation for operation in operations if not isinstance(operation, Operation)]
    for other in others:
        if asyncio.iscoroutine(other):
            other.close()
    if others:
        raise MisusedOperation(
            f"ctx.{where} takes durable operations, not {type(others[0]).__name__}. Give it ctx.step(function, …), "
            "ctx.wait(…), ctx.sleep(…) or child.result(); for several in a row use ctx.branches(function, …)."
        )


class Keys:
    """Gives operations their keys in one scope: a name, then `name#2`, `name#3`, or an explicit one. A key that is used
    twice, also by a name and explicitly, raises DuplicateKey."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()

    def next(self, name: str) -> str:
        """The key of the next operation of that name, with its scope."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return self.use(name if count == 1 else f"{name}#{count}")

    def use(self, key: str) -> str:
        """An explicit key, with its scope."""
        full = self._scope + key
        if len(full) > LONGEST_KEY:
            raise InvalidOption("key", key, f"at most {LONGEST_KEY} characters, with the scopes of branches around it")
        if unfit := check_key_text("key", full):
            raise unfit
        if key in self._used:
            raise DuplicateKey(full)
        self._used.add(key)
        return full
