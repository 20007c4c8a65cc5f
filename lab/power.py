"""The power lab: cut the power at random, boot from what the disk holds, and look for what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from lab.disk import Acknowledged, Operation, RecordingDisk
from lab.images import Image, images
from perdure.codec import refold
from perdure.errors import PerdureError
from perdure.model.leases import Owner
from perdure.model.outcomes import Completed
from perdure.model.queries import Page
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import AppendEvent, ClaimNext, ClaimReceipt, Complete, LeaseRight, Receipt, Register

FULL, NORMAL = 2, 1
"""PRAGMA synchronous: what we promise with, and what loses commits (so that the lab can be seen to find them)."""

CHECKPOINT_PAGES = 20
"""Small, so that power is cut during checkpoints and after the log was begun anew, too."""


class PowerReport(msgspec.Struct, frozen=True):
    images: int
    operations: int
    acknowledged: int
    lost: tuple[str, ...]
    """Acknowledged commits that an image did not hold, one line per image."""
    broken: tuple[str, ...]
    """Images that did not open, were damaged, or whose records are not the fold of their logs."""


def run_power(folder: Path, *, count: int, seed: int = 1, synchronous: int = FULL, processes: int = 30) -> PowerReport:
    log = asyncio.run(_record(folder, synchronous, processes))
    lost, broken, made = [], [], 0
    for number, image in enumerate(images(log, count, seed)):
        made += 1
        missing, problems = asyncio.run(_boot(folder / f"image-{number}", image))
        if missing:
            lost.append(f"image {number}, cut at {image.position} of {len(log)}: {', '.join(sorted(missing)[:5])}")
        broken += [f"image {number}, cut at {image.position} of {len(log)}: {problem}" for problem in problems]
    acknowledged = sum(isinstance(operation, Acknowledged) for operation in log)
    return PowerReport(made, len(log), acknowledged, tuple(lost), tuple(broken))


async def _record(folder: Path, synchronous: int, processes: int) -> Sequence[Operation]:
    """Lives of processes, three at a time so that commits are shared; every acknowledgement is noted."""
    disk = RecordingDisk(f"recording-{folder.name}-{synchronous}")
    try:
        registry = await SqliteRegistry.open(folder / "work.db", vfs=disk.name)
        await asyncio.wrap_future(registry._writer.call(lambda c: c.pragma("synchronous", synchronous)))
        await asyncio.wrap_future(registry._writer.call(lambda c: c.wal_autocheckpoint(CHECKPOINT_PAGES)))
        async with asyncio.TaskGroup() as together:
            for lane in range(3):
                together.create_task(_live(registry, disk, lane, processes // 3))
        log = list(disk.log)  # what closing writes is not looked at
        await registry.close()
        return log
    finally:
        disk.unregister()


async def _live(registry: SqliteRegistry, disk: RecordingDisk, lane: int, processes: int) -> None:
    definition, owner = Definition("python", f"work{lane}"), Owner(f"owner{lane}", f"incarnation{lane}")

    def acknowledge(receipt: Receipt) -> None:
        disk.note(Acknowledged(f"{receipt.process_id}#{receipt.record.state.last_sequence}"))

    for number in range(processes):
        id = f"p{lane}-{number}"
        text = msgspec.Raw(msgspec.json.encode("x" * (700 * (number % 4))))
        registration = Registration(id=id, definition=definition, recovery="rerunnable", input=text)
        acknowledge(await registry.execute(Register(process_id=id, registration=registration)))
        claim = ClaimNext(
            claim_id=f"claim-{id}", token=f"token-{id}", owner=owner, limit=1, ttl_ms=60_000, definitions=(definition,)
        )
        claimed: ClaimReceipt = await registry.execute(claim)
        (row,) = claimed.claimed
        disk.note(Acknowledged(f"{id}#{row.record.state.last_sequence}"))
        right = LeaseRight(row.lease.key)
        acknowledge(await registry.execute(AppendEvent(process_id=id, type="told", payload=text, execution=right)))
        acknowledge(await registry.execute(Complete(process_id=id, outcome=Completed(text), authority=right)))


async def _boot(folder: Path, image: Image) -> tuple[set[str], list[str]]:
    """What was acknowledged and is not there, and what else is wrong with this image."""
    _lay_out(folder, image)
    try:
        registry = await SqliteRegistry.open(folder / "work.db")
    except PerdureError as error:
        return set(), [f"it did not open: {error}"]
    problems = []
    there: set[str] = set()
    try:
        page = await registry.list(page=Page(1_000))
        for record in page.records:
            events = (await registry.events_after(record.id, 0)).events
            there.update(f"{record.id}#{sequence}" for sequence in range(record.state.last_sequence + 1))
            if refold(record.registration, record.state.created_at_ms, events) != record:
                problems.append(f"the record of {record.id} is not the fold of its log")
    except PerdureError as error:
        problems.append(f"it can't be read: {error}")
    finally:
        await registry.close()
    connection = apsw.Connection(str(folder / "work.db"), flags=apsw.SQLITE_OPEN_READONLY)
    said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    connection.close()
    return set(image.acknowledged) - there, problems + [line for line in said if line != "ok"]


def _lay_out(folder: Path, image: Image) -> None:
    folder.mkdir()
    for name, content in image.files.items():
        (folder / name).write_bytes(content)
