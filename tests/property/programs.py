"""Random programs: a small language of durable operations, what generates it, and the process function that runs it.

Every program is deterministic whatever happens to its workers: what races is told apart by virtual durations of whole
seconds, and signals are all sent at the start, numbered in their order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.operations import Operation
from perdure.engines.python.signals import Signal
from perdure.errors import DurableError, ProcessFailed
from perdure.host import Host

go = Signal("go", int)
never = Signal("never", int)


@dataclass(frozen=True)
class Step:
    """Returns its value after so many milliseconds, or raises."""

    value: int
    takes_ms: int = 0
    fails: bool = False


@dataclass(frozen=True)
class Sleep:
    takes_ms: int


@dataclass(frozen=True)
class Wait:
    """For a signal that is there, or for one that never comes, until a timeout."""

    comes: bool
    timeout_ms: int = 500


@dataclass(frozen=True)
class Together:
    operations: tuple[Step | Sleep, ...]


@dataclass(frozen=True)
class Race:
    """The operation at `winner` takes no time; the others take a thousand seconds and more."""

    size: int
    winner: int
    value: int


@dataclass(frozen=True)
class Repeat:
    """So often as the last value says (modulo 3)."""

    body: tuple[Node, ...]


@dataclass(frozen=True)
class Branch:
    branches: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Child:
    body: tuple[Node, ...]


Node = Step | Sleep | Wait | Together | Race | Repeat | Branch | Child
Program = tuple[Node, ...]

steps = st.builds(
    Step, st.integers(0, 5), st.sampled_from([0, 0, 3, 700]), st.sampled_from([False, False, False, True])
)
sleeps = st.builds(Sleep, st.sampled_from([0, 1, 400, 5_000]))
leaves: st.SearchStrategy[Node] = st.one_of(
    steps,
    sleeps,
    st.builds(Wait, st.booleans()),
    st.builds(Together, st.lists(st.one_of(steps, sleeps), min_size=1, max_size=3).map(tuple)),
    st.integers(1, 3).flatmap(lambda size: st.builds(Race, st.just(size), st.integers(0, size - 1), st.integers(0, 5))),
)


def _nested(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    body = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        inner,
        st.builds(Repeat, body),
        st.builds(Branch, st.lists(body, min_size=1, max_size=2).map(tuple)),
        st.builds(Child, body),
    )


programs: st.SearchStrategy[Program] = st.lists(
    st.recursive(leaves, _nested, max_leaves=8), min_size=1, max_size=4
).map(tuple)


@dataclass
class Bodies:
    """Counts the bodies of steps that came to their end, by process and key."""

    ended: Counter[str] = field(default_factory=Counter)

    def step(self, ctx: ProcessContext, at: str, node: Step) -> Operation[int]:
        async def body(value: int) -> int:
            await asyncio.sleep(node.takes_ms / 1000)
            self.ended[f"{ctx.process_id}/{operation.key}"] += 1
            if node.fails:
                raise ValueError(str(value))
            return value

        operation = ctx.step(body, node.value, key=at)
        return operation


class Interpreter:
    """Runs a program in a process; what it returns is all that it has seen."""

    def __init__(self, bodies: Bodies, child: Process[int, Any], children: list[Child]) -> None:
        self._bodies, self._child, self._children = bodies, child, children

    async def run(self, ctx: ProcessContext, program: Program, at: str = "") -> list[Any]:
        seen: list[Any] = []
        for index, node in enumerate(program):
            place = f"{at}{index}"
            try:
                seen.append(await self._one(ctx, node, place, seen))
            except (DurableError, ProcessFailed, TimeoutError) as error:
                seen.append(type(error).__name__)
        return seen

    async def _one(self, ctx: ProcessContext, node: Node, at: str, seen: list[Any]) -> Any:
        match node:
            case Step():
                return await self._bodies.step(ctx, at, node)
            case Sleep(takes_ms):
                return await ctx.sleep(takes_ms / 1000, key=at)
            case Wait(comes, timeout_ms):
                if comes and "." not in at:
                    return await ctx.wait(go, key=at)
                return await ctx.wait(never, timeout=timeout_ms / 1000, key=at)
            case Together(operations):
                return await ctx.gather(*(self._leaf(ctx, o, f"{at}-{i}") for i, o in enumerate(operations)))
            case Race(size, winner, value):
                losers: list[Callable[[str], Operation[Any]]] = [
                    lambda key: ctx.sleep(1_000, key=key), lambda key: ctx.wait(never, timeout=2_000, key=key),
                ]  # fmt: skip
                racing = [
                    self._bodies.step(ctx, f"{at}-{i}", Step(value)) if i == winner else losers[i % 2](f"{at}-{i}")
                    for i in range(size)
                ]
                return list(await ctx.race(*racing))
            case Repeat(body):
                last = seen[-1] if seen and isinstance(seen[-1], int) else 2
                return [await self.run(ctx, body, f"{at}x{turn}.") for turn in range(last % 3)]
            case Branch(branches):
                return await ctx.branches(*(self._branch(body) for body in branches))
            case Child():
                started = await ctx.start(self._child, self._children.index(node), key=at)
                return await started.result()

    def _branch(self, body: Program) -> Callable[[ProcessContext], Any]:
        async def branch(ctx: ProcessContext) -> list[Any]:
            return await self.run(ctx, body, "b.")

        return branch

    def _leaf(self, ctx: ProcessContext, node: Step | Sleep, at: str) -> Operation[Any]:
        return self._bodies.step(ctx, at, node) if isinstance(node, Step) else ctx.sleep(node.takes_ms / 1000, key=at)


def define(host: Host, program: Program, bodies: Bodies) -> None:
    """The process `work` runs the program; `child` runs the body of the child node of that number."""
    children = child_nodes(program)

    @host.process(recovery="rerunnable", max_deaths=1_000_000, signals=[go, never])
    async def child(ctx: ProcessContext, number: int) -> Any:
        return await Interpreter(bodies, child, children).run(ctx, children[number].body, "c.")

    @host.process(recovery="rerunnable", name="work", max_deaths=1_000_000, signals=[go, never])
    async def work(ctx: ProcessContext) -> Any:
        return await Interpreter(bodies, child, children).run(ctx, program)


def child_nodes(program: Program) -> list[Child]:
    """All of them, however deep."""
    found: list[Child] = []
    for node in program:
        match node:
            case Child(body):
                found += [node, *child_nodes(body)]
            case Repeat(body):
                found += child_nodes(body)
            case Branch(branches):
                for body in branches:
                    found += child_nodes(body)
            case _:
                pass
    return found
