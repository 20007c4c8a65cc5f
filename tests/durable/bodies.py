"""Processes of one body each, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.model.outcomes import Completed, Failed
from perdure.model.registration import RetryPolicy
from tests.durable.simulated import Machine, simulate

Body = Callable[[ProcessContext], Awaitable[Any]]

go = Signal("go", int)


def one(body: Body, *, retry: RetryPolicy | None = None) -> Callable[[Host], Process[None, Any]]:
    """Defines one process, `work`, with this body."""

    def define(host: Host) -> Process[None, Any]:
        @host.process(recovery="rerunnable", name="work", retry=retry, signals=[go])
        async def work(ctx: ProcessContext) -> Any:
            return await body(ctx)

        return work

    return define


async def outcome_of(machine: Machine, body: Body, retry: RetryPolicy | None = None) -> Any:
    """How a process with this body ends, under the id `p`."""
    machine.define = one(body, retry=retry)
    async with machine.host() as host:
        await host.start(host.find_process("work"), id="p")
        return await machine.ended("p")


def run(body: Body, retry: RetryPolicy | None = None) -> tuple[Any, Machine]:
    machines: list[Machine] = []

    async def main() -> Any:
        machine = Machine(lambda host: None)
        machines.append(machine)
        return await outcome_of(machine, body, retry)

    return simulate(main), machines[0]


def keys(machine: Machine, prefix: str = "step.") -> list[str]:
    return asyncio.run(machine.keys("p", prefix))


def value(outcome: Any) -> Any:
    assert isinstance(outcome, Completed), outcome
    return msgspec.json.decode(outcome.value)


def error(outcome: Any) -> tuple[str, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.error.type, outcome.error.message


async def double(n: int) -> int:
    return 2 * n
