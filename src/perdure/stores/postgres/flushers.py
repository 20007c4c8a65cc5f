"""Group commit: what arrives while a transaction is in flight forms the next one, on a few connections at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg

from perdure.ids import Ids
from perdure.stores.group_commit import LARGEST_BATCH, Entry
from perdure.stores.postgres.committing import Committer
from perdure.stores.postgres.connections import STATEMENT_BOUND_S, Connections
from perdure.stores.postgres.faults import typed
from perdure.stores.postgres.own_loop import OwnLoop, closed
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.waiting_line import Waiting, WaitingLine
from perdure.transitions.commands import ClaimNext, RowCommand

FLUSHERS = 3
ASIDES = 4
GROUP_WAIT_MS = 100
ALONE_WAIT_MS = 1_000
LOCK_BOUND_S = 10.0
RENEWAL_BOUND_S = 2.5

Deliver = Callable[[Sequence[Entry], bool], None]


class Flushers:
    """Takes what callers have queued, and commits it. Lives on the store's own loop.

    `deliver(entries, wrote)` is called after each transaction: for one process in the order of its commits. Claims
    and renewals have connections of their own, so neither waits for the other, or for what is slow.
    """

    def __init__(self, loop: OwnLoop, shared: Shared, ids: Ids, deliver: Deliver) -> None:
        self._loop, self._shared, self._deliver = loop, shared, deliver
        self._pools: list[Connections] = []

        def committer(limit: int, bound_s: float = STATEMENT_BOUND_S) -> Committer:
            self._pools.append(Connections(shared.target, limit, bound_s=bound_s))
            return Committer(loop, self._pools[-1], shared, ids, bound_s)

        self._changes, self._asides, self._alone = committer(FLUSHERS), committer(ASIDES), committer(ASIDES)
        self._claiming, self._renewing = committer(1), committer(1, RENEWAL_BOUND_S)
        self._line = WaitingLine()
        self._claims: deque[Entry] = deque()
        self._renewals: deque[Entry] = deque()
        self._active = self._under_way = 0
        self._claims_run = self._renewals_run = self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, entries: Sequence[Entry]) -> None:
        if self._closed:
            self._refuse(entries, closed(self._shared.store))
            return
        for entry in entries:
            first, *others = entry.commands
            if isinstance(first, RowCommand) or any(isinstance(command, RowCommand) for command in others):
                self._line.join(entry)
            elif isinstance(first, ClaimNext) or any(isinstance(command, ClaimNext) for command in others):
                self._claims.append(entry)
            else:
                self._renewals.append(entry)
        self._go_on()

    async def close(self) -> None:
        """Answer everything that was submitted, then let the connections go."""
        self._closed = True
        await self._idle.wait()
        for pool in self._pools:
            await pool.close()

    def _go_on(self) -> None:
        while self._active < FLUSHERS and (batch := self._line.take(LARGEST_BATCH)):
            self._active += 1
            self._start(self._flush(batch))
        if self._claims and not self._claims_run:
            self._claims_run = True
            self._start(self._flush_claims())
        if self._renewals and not self._renewals_run:
            self._renewals_run = True
            self._start(self._flush_renewals())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._under_way += 1
        self._idle.clear()
        self._loop.spawn(work).add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._under_way -= 1
        self._go_on()
        if not self._under_way:
            self._idle.set()

    # --- what names its processes -----------------------------------------------------------------------------

    async def _flush(self, batch: list[Waiting]) -> None:
        try:
            while batch:
                held = await self._commit(self._changes, [one.entry for one in batch])
                aside = [one for one in batch if one.entry in held]
                self._line.done([one for one in batch if one.entry not in held])
                if aside:
                    self._start(self._flush_aside(aside))
                self._go_on()
                batch = self._line.take(LARGEST_BATCH)
        finally:
            self._active -= 1

    async def _flush_aside(self, batch: list[Waiting]) -> None:
        """Whoever holds their rows is mostly another batch, and done in a moment. What is held longer is tried alone:
        it delays nobody but itself."""
        held = await self._commit(self._asides, [one.entry for one in batch], wait_ms=GROUP_WAIT_MS)
        self._line.done([one for one in batch if one.entry not in held])
        for one in batch:
            if one.entry in held:
                self._start(self._flush_alone(one))

    async def _flush_alone(self, one: Waiting) -> None:
        await self._commit_alone(one.entry)
        self._line.done([one])

    async def _commit_alone(self, entry: Entry) -> None:
        """On connections that only those use who are held for long."""
        until_s = self._loop.now_s() + LOCK_BOUND_S
        while held := await self._commit(self._alone, [entry], wait_ms=ALONE_WAIT_MS):
            if self._loop.now_s() >= until_s:
                self._refuse(held, typed(asyncpg.LockNotAvailableError(), self._shared.store))
                break

    # --- claims and renewals ----------------------------------------------------------------------------------

    async def _flush_claims(self) -> None:
        """What is held is passed over; but a claim that is asked again must be answered with what it had."""
        while self._claims:
            for entry in await self._commit(self._claiming, self._take(self._claims)):
                self._start(self._commit_alone(entry))
        self._claims_run = False

    async def _flush_renewals(self) -> None:
        """A lease is locked for as long as a commit takes, and no longer."""
        while self._renewals:
            held = await self._commit(self._renewing, self._take(self._renewals))
            if held and (held := await self._commit(self._renewing, held, wait_ms=ALONE_WAIT_MS)):
                self._refuse(held, typed(asyncpg.LockNotAvailableError(), self._shared.store))
        self._renewals_run = False

    def _take(self, queue: deque[Entry]) -> list[Entry]:
        taken: list[Entry] = []
        while queue and len(taken) < LARGEST_BATCH:
            entry = queue.popleft()
            if not entry.withdrawn():
                taken.append(entry)
        return taken

    # --- answers ----------------------------------------------------------------------------------------------

    async def _commit(self, committer: Committer, entries: list[Entry], wait_ms: int = 0) -> list[Entry]:
        """Commit and deliver; the entries that are not answered yet."""
        before = committer.commits
        try:
            held = await committer.commit(entries, wait_ms=wait_ms)
        except Exception as error:  # a bug of ours: nobody may be left waiting for an answer
            for entry in entries:
                entry.results, entry.error = [], error
            held = []
        wrote = committer.commits != before and committer is not self._renewing  # a renewal changes no row
        self._deliver([entry for entry in entries if entry not in held], wrote)
        return held

    def _refuse(self, entries: Sequence[Entry], error: BaseException) -> None:
        for entry in entries:
            entry.error = error
        self._deliver(entries, False)
