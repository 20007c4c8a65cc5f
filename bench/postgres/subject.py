"""The rows that the library writes for one process and one step, read from a schema of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from bench import subject
from bench.subject import LEASE_TTL_MS, ORDER, OWNER, Row
from perdure import Host, Process, ProcessContext
from perdure.contract.registry import Registry
from perdure.model.outcomes import Completed
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.store import PostgresRegistry
from perdure.transitions.commands import ClaimNext, ClaimReceipt, Complete, LeaseRight

STEPS = 10


async def _number(number: int) -> int:
    return number


async def _ten(ctx: ProcessContext, payload: str) -> int:
    total = 0
    for number in range(STEPS):
        total += await ctx.step(_number, number)
    return total


def url_of(url: str, schema: str) -> str:
    return f"{url}?schema={schema}"


def make_host(
    url: str, *, work: bool, registry: Registry | None = None, concurrency: int | None = None, name: str = "bench"
) -> tuple[Host, Process[dict[str, Any], bool], Process[str, int]]:
    """A host with the two definitions: `noop`, and `ten` with its ten steps."""
    host, noop = subject.make_host(url, work=work, registry=registry, concurrency=concurrency, name=name)
    ten: Process[str, int] = host.process(recovery="rerunnable", name="ten")(_ten)
    return host, noop, ten


@dataclass(frozen=True)
class Templates:
    """The rows of one process: pending, running (with its lease), completed; and of a step's end."""

    registration: Row
    pending: Row
    running: Row
    completed: Row
    lease: Row
    started_event: Row
    completed_event: Row
    stepped: Row
    step_event: Row


async def take_templates(url: str, schema: str, connection: Connection) -> Templates:
    """Run one process by hand, and read its rows after each step."""

    async def last(table: str, order: str = "row") -> Row:
        row = await connection.fetchrow(f"SELECT * FROM {schema}.{table} ORDER BY {order} DESC LIMIT 1")
        assert row is not None
        return dict(row)

    registry = await PostgresRegistry.open(url_of(url, schema))
    host, noop, _ = make_host(url, work=False, registry=registry)
    async with host:
        process_id = (await host.start(noop, ORDER)).id
        registration, pending = await last("registrations"), await last("processes")
        claim = ClaimNext(
            claim_id="claim-id-of-22-letters", token="token-of-22-characters", owner=OWNER, limit=1,
            ttl_ms=LEASE_TTL_MS, definitions=(noop.definition,),
        )  # fmt: skip
        receipt: ClaimReceipt = await registry.execute(claim)
        (claimed,) = receipt.claimed
        running, lease, started = await last("processes"), await last("leases"), await last("events")
        outcome = Completed(msgspec.Raw(b"true"))
        await registry.execute(
            Complete(process_id=process_id, outcome=outcome, authority=LeaseRight(claimed.lease.key))
        )
        completed, ended = await last("processes"), await last("events", "row DESC, sequence")
    host, _, ten = make_host(url, work=True, registry=registry)
    async with host:
        await (await host.start(ten, "payload")).result()
    await registry.close()
    step_event = await connection.fetchrow(
        f"SELECT * FROM {schema}.events WHERE type = 'step.completed' ORDER BY sequence DESC LIMIT 1"
    )
    assert step_event is not None
    return Templates(registration, pending, running, completed, lease, started, ended, running, dict(step_event))
