"""What is measured: one process definition, its input, and the rows that the library writes for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure import Host, Process, ProcessContext, WorkerOptions
from perdure.contract.registry import Registry
from perdure.model.leases import Owner
from perdure.model.outcomes import Completed
from perdure.transitions.commands import ClaimNext, ClaimReceipt, Complete, LeaseRight

OWNER = Owner("bench", "incarnation-of-22-chars")
LEASE_TTL_MS = 86_400_000

ORDER: dict[str, Any] = {
    "order": 48_151_623, "kind": "thumbnail", "source": "s3://photos/2024/08/harbour/IMG_0042.jpeg",
    "customer": "j.doe@example.org", "size": {"width": 640, "height": 480, "quality": 80}, "tags": ["new", "eu", "x"],
}  # fmt: skip
"""About 200 bytes of JSON."""

Row = dict[str, Any]


async def _noop(ctx: ProcessContext, order: dict[str, Any]) -> bool:
    return True


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def make_host(
    url: str, *, work: bool, concurrency: int | None = None, registry: Registry | None = None, name: str = "bench"
) -> tuple[Host, Process[dict[str, Any], bool]]:
    """A host on that store with the one definition, `noop`."""
    options = WorkerOptions() if concurrency is None else WorkerOptions(concurrency=concurrency)
    host = Host(url, name=name, work=work, options=options, registry=registry)
    noop: Process[dict[str, Any], bool] = host.process(recovery="rerunnable", name="noop")(_noop)
    return host, noop


@dataclass(frozen=True)
class Templates:
    """The rows of one process as the library has written them: pending, running (with its lease), completed."""

    id: str
    registration: Row
    pending: Row
    running: Row
    completed: Row
    lease: Row
    started_event: Row
    completed_event: Row


async def take_templates(folder: Path) -> Templates:
    """Run one process by hand in a file of its own, and read its rows after each step."""
    path = folder / "templates.db"
    host, noop = make_host(url_of(path), work=False)
    async with host:
        process_id = (await host.start(noop, ORDER)).id
        pending = last_row(path, "processes")
        claim = ClaimNext(
            claim_id="claim-id-of-22-letters", token="token-of-22-characters", owner=OWNER, limit=1,
            ttl_ms=LEASE_TTL_MS, definitions=(noop.definition,),
        )  # fmt: skip
        receipt: ClaimReceipt = await host.registry.execute(claim)
        (claimed,) = receipt.claimed
        running, lease, started = last_row(path, "processes"), last_row(path, "leases"), last_row(path, "events")
        outcome = Completed(msgspec.Raw(b"true"))
        await host.registry.execute(
            Complete(process_id=process_id, outcome=outcome, authority=LeaseRight(claimed.lease.key))
        )
        return Templates(
            process_id, last_row(path, "registrations"), pending, running, last_row(path, "processes"), lease, started,
            last_row(path, "events"),
        )  # fmt: skip


def last_row(path: Path, table: str, where: str = "true") -> Row:
    """The last row of a table for which that is so."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        last = "sequence" if table == "events" else "row"
        cursor = connection.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY {last} DESC LIMIT 1")
        names = [name for name, *_ in cursor.get_description()]
        return dict(zip(names, next(cursor), strict=True))
    finally:
        connection.close()
