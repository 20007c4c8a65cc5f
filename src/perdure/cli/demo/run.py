"""The demo's run: find the folders, start their processes, gather, combine, check."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeVar

from perdure import Handle, Host, Process
from perdure.cli.demo.check import Stopped, independent_fingerprint
from perdure.cli.demo.host import FolderRead, FolderToRead, combine, make_host
from perdure.cli.demo.ledger import Ledger
from perdure.cli.demo.names import encode_path
from perdure.cli.demo.screen import Screen
from perdure.cli.demo.walk import Folder, plan
from perdure.cli.text import counted, size
from perdure.errors import PerdureError, ProcessAbandoned, ProcessCancelled, ProcessFailed
from perdure.model.events import Takeover
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Failed, ProcessAwaitOutput
from perdure.model.record import ProcessRecord

ROUNDS = 3
AT_ONCE = 1_000
DRAIN_GRACE = timedelta(seconds=1)

T = TypeVar("T")

Origin = Literal["done_before", "new", "queued_before", "begun_before"]
"""What stood of a folder when this run came: its end, nothing, a process not begun, or one that was begun."""


class KeepsChanging(PerdureError):
    """The tree changed each time it was read."""


@dataclass
class Result:
    """What a run found."""

    folders: int
    fingerprint: str
    check: str
    origins: Counter[Origin]
    taken_over: int
    given_back: int
    first_takeover_s: float | None
    files: int
    bytes: int
    links: int
    others: int
    unreadable: int
    files_now: int
    bytes_now: int
    seconds: float
    rounds: int

    @property
    def matches(self) -> bool:
        return self.fingerprint == self.check


@dataclass
class Work:
    """What is known while a run goes on."""

    origins: dict[str, Origin] = field(default_factory=dict)
    read: dict[str, FolderRead] = field(default_factory=dict)
    now: set[str] = field(default_factory=set)
    seconds: float = 0.0


class Demo:
    """One run over one tree. `left_out` are names to pass over, by folder: the database's own files."""

    def __init__(
        self,
        root: bytes,
        left_out: Mapping[bytes, tuple[str, ...]],
        url: str,
        screen: Screen,
        *,
        concurrency: int,
        slow_ms: int = 0,
    ) -> None:
        self._root, self._left_out, self._screen = root, left_out, screen
        self._ledger = Ledger(self._say_takeover)
        self._work = Work()
        self._stop = threading.Event()
        self._host: Host
        self._process: Process[FolderToRead, FolderRead]
        self._host, self._process = make_host(url, concurrency=concurrency, slow_ms=slow_ms, sink=self._ledger)

    async def run(self) -> Result:
        """Do the whole of it. Cancelled, it lets go of what it holds: the next run goes on from there."""
        try:
            self._screen.say(f"fingerprinting {encode_path(self._root)}")
            folders = await self._plan()
            files, volume = sum(f.files for f in folders), sum(f.bytes for f in folders)
            self._screen.say(f"{counted(len(folders), 'folder')}, {counted(files, 'file')}, {size(volume)}")
            await self._host.open()
            for number in range(1, ROUNDS + 1):
                changed = await self._gather(folders)
                again = folders
                if not changed:
                    fingerprint = combine([(f.relative, self._work.read[f.id].fingerprint) for f in folders])
                    check = await self._check(len(folders))
                    if fingerprint == check:
                        return self._result(folders, fingerprint, check, number)
                    again = await self._plan()
                    if [f.id for f in again] == [f.id for f in folders]:
                        return self._result(folders, fingerprint, check, number)
                self._screen.say("the tree changed meanwhile: what changed is done anew")
                folders = await self._plan() if changed else again
            raise KeepsChanging("the tree changed each time it was read. Choose a quieter folder, or try again.")
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            self._stop.set()
            self._screen.close()
            await self._host.close(grace=DRAIN_GRACE)

    # --- the steps --------------------------------------------------------------------------------------------

    async def _plan(self) -> list[Folder]:
        def found(folders: int, files: int) -> None:
            if self._stop.is_set():
                raise Stopped
            self._screen.looking(folders, files)

        return await _in_thread(lambda: plan(self._root, self._left_out, found))

    async def _gather(self, folders: Sequence[Folder]) -> list[str]:
        """Start what was never started, and wait for all; the ids of folders that changed while they were read."""
        known = await self._known([f.id for f in folders])
        for f in folders:
            self._work.origins.setdefault(f.id, _origin(known.get(f.id)))
        done = [f for f in folders if _is_done(known.get(f.id))]
        self._say_what_stands(folders, done)
        self._screen.working(len(folders), sum(f.files for f in folders), len(done), sum(f.files for f in done))
        began_s, waits = time.monotonic(), set[asyncio.Task[str | None]]()
        try:
            for at in range(0, len(folders), AT_ONCE):
                part = folders[at : at + AT_ONCE]
                await self._start([f for f in part if f.id not in known])
                waits |= {asyncio.ensure_future(self._wait(f, known.get(f.id))) for f in part}
            changed = [await waited for waited in asyncio.as_completed(waits)]
        finally:
            for task in waits:
                task.cancel()
        self._work.seconds += time.monotonic() - began_s
        return [id for id in changed if id is not None]

    async def _known(self, ids: Sequence[str]) -> dict[str, ProcessRecord]:
        known: dict[str, ProcessRecord] = {}
        for at in range(0, len(ids), AT_ONCE):
            known |= await self._host.registry.get_many(ids[at : at + AT_ONCE])
        return known

    async def _start(self, folders: Sequence[Folder]) -> None:
        values = [FolderToRead(encode_path(f.path), f.listing, f.leave_out) for f in folders]
        await self._host.start_many(self._process, values, ids=[f.id for f in folders])

    async def _wait(self, folder: Folder, record: ProcessRecord | None) -> str | None:
        """Wait for one folder; its id if it changed while it was read. Any other end but a result is raised."""
        handle: Handle[FolderRead] = self._host.get_handle(folder.id, self._process)
        outcome: ProcessAwaitOutput = record.outcome if record and record.outcome else await handle.outcome()
        match outcome:
            case Completed():
                self._work.read[folder.id] = self._process.output_type.decode(outcome.value)
            case Failed(error) if error.type == "FolderChanged":
                return folder.id
            case _:
                raise _ended(folder.id, outcome)
        if not _is_done(record):
            self._work.now.add(folder.id)
            self._screen.done(folder.files, self._work.read[folder.id].bytes)
        return None

    async def _check(self, folders: int) -> str:
        self._screen.checking(folders)
        return await _in_thread(
            lambda: independent_fingerprint(self._root, self._left_out, self._screen.checked, self._stop)
        )

    async def _leave(self) -> None:
        self._screen.close()
        self._stop.set()
        self._screen.say("stopping: what is half done is given back; another Ctrl-C leaves at once")
        await self._host.close(grace=DRAIN_GRACE)
        done = len(self._work.read.keys() | self._ledger.completed)
        if self._work.origins:
            self._screen.say(
                f"{counted(done, 'folder is', 'folders are')} done and kept, of {len(self._work.origins):,}."
            )
        self._screen.say("Run the same command again: it goes on from here.")

    # --- what is said -----------------------------------------------------------------------------------------

    def _say_what_stands(self, folders: Sequence[Folder], done: Sequence[Folder]) -> None:
        origins = Counter(self._work.origins[f.id] for f in folders)
        if done:
            self._screen.say(f"already done by earlier runs: {counted(len(done), 'folder')}, not done again")
        if begun := origins["begun_before"]:
            self._screen.say(f"begun and not finished by earlier runs: {counted(begun, 'folder')}")

    def _say_takeover(self, takeover: Takeover, after_s: float) -> None:
        why = f"proof that it is dead: {takeover.proof.detail}" if takeover.proof else "its lease has lapsed"
        self._screen.say(f"taking over from {takeover.owner.name} after {after_s:.2f} s; {why}")

    def _result(self, folders: Sequence[Folder], fingerprint: str, check: str, rounds: int) -> Result:
        ids = [f.id for f in folders]
        read = [self._work.read[id] for id in ids]
        now = [self._work.read[id] for id in ids if id in self._work.now]
        return Result(
            len(folders), fingerprint, check, Counter(self._work.origins[id] for id in ids),
            len(self._ledger.taken_over.keys() & set(ids)), len(self._ledger.given_back & set(ids)),
            self._ledger.first_takeover_s,
            sum(r.files for r in read), sum(r.bytes for r in read), sum(r.links for r in read),
            sum(r.others for r in read), sum(r.unreadable for r in read),
            sum(r.files for r in now), sum(r.bytes for r in now), self._work.seconds, rounds,
        )  # fmt: skip


def _is_done(record: ProcessRecord | None) -> bool:
    return record is not None and record.status == "completed"


def _origin(record: ProcessRecord | None) -> Origin:
    if record is None:
        return "new"
    if record.status == "completed":
        return "done_before"
    return "begun_before" if record.attempt else "queued_before"


def _ended(id: str, outcome: ProcessAwaitOutput) -> PerdureError:
    match outcome:
        case Failed(error):
            return ProcessFailed(id, outcome, f"{error.type}: {error.message}")
        case Cancelled(reason):
            return ProcessCancelled(id, outcome, reason)
        case Abandoned(evidence):
            return ProcessAbandoned(id, outcome, f"{evidence.writer}: {evidence.proof}")
        case _:
            return PerdureError(f"process {id!r} has no result any more. Use another database: --db other.db")


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
