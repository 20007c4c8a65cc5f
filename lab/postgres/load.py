"""The load: processes started at a steady rate, signals sent, ends waited for; all that was acknowledged is noted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from lab.ledger import Ledger
from lab.postgres.lines import (
    AnyLine,
    OutcomeSeen,
    SignalAcknowledged,
    SignalAsked,
    StartAcknowledged,
    StartAsked,
    boot_ms,
)
from lab.postgres.work import STARTED, Work, define_work, go
from perdure.errors import StoreError
from perdure.host import Host

T = TypeVar("T")

ASKS_AGAIN_AFTER_S = 0.1
TAKES_MS = (2, 150)
SIGNALLED_WITHIN_S = 3.0
WAITED_FOR = 0.3
"""The share of processes whose end somebody waits for."""
ASKED_ONCE = 0.1
"""The share of starts that are not asked for again when their answer is lost: they may be there or not."""


class Load:
    """Starts through a host that doesn't work. What it is refused for the store's sake it asks for again."""

    def __init__(self, url: str, ledger: Ledger[AnyLine], seed: int, rate: float) -> None:
        self._ledger, self._rate = ledger, rate
        self._random = random.Random(f"load-{seed}")  # noqa: S311 - it chooses work
        self._host = Host(url, name="load", work=False)
        self._processes = define_work(self._host, ledger, lambda: "load")
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    async def open(self) -> None:
        await self._host.open()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._host.close()

    @property
    def waiting(self) -> int:
        """How many of its starts, signals and waits have no answer yet."""
        return len(self._tasks)

    async def run_until(self, over: asyncio.Event) -> None:
        """Start one process after the other, whether or not the last one was answered."""
        number = 0
        while not over.is_set():
            number += 1
            kind = STARTED[number % len(STARTED)]
            work = Work(self._random.randrange(1_000_000), self._random.randint(*TAKES_MS))
            task = asyncio.ensure_future(self._one(f"{kind}-{number}", kind, work, random.Random(number)))  # noqa: S311 - as above
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            await asyncio.sleep(1 / self._rate)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(f"the load was refused: {type(error).__name__}: {error}")

    async def _one(self, process_id: str, kind: str, work: Work, chance: random.Random) -> None:
        process = self._processes[kind]
        self._ledger.write(
            StartAsked(boot_ms=boot_ms(), process_id=process_id, kind=kind, n=work.n, takes_ms=work.takes_ms)
        )
        self.counts["asked"] += 1
        if chance.random() < ASKED_ONCE and kind != "waiter":
            try:
                run = await self._host.start(process, work, id=process_id)
            except StoreError:
                self.counts["given up"] += 1
                return
        else:
            run = await self._surely(lambda: self._host.start(process, work, id=process_id))
        self._ledger.write(StartAcknowledged(boot_ms=boot_ms(), process_id=process_id))
        self.counts["started"] += 1
        if kind == "waiter":
            await asyncio.sleep(chance.uniform(0, SIGNALLED_WITHIN_S))
            await self._signal(process_id, chance.randrange(1_000_000))
        if chance.random() < WAITED_FOR:
            outcome = await self._surely(run.outcome)
            self._ledger.write(
                OutcomeSeen(boot_ms=boot_ms(), process_id=process_id, outcome=msgspec.json.encode(outcome).decode())
            )
            self.counts["ends seen"] += 1

    async def _signal(self, process_id: str, value: int) -> None:
        signal_id = f"go-{process_id}"
        self._ledger.write(SignalAsked(boot_ms=boot_ms(), process_id=process_id, signal_id=signal_id, value=value))
        handle = self._host.get_handle(process_id)
        sequence = await self._surely(lambda: handle.signal(go, value, id=signal_id))
        self._ledger.write(
            SignalAcknowledged(boot_ms=boot_ms(), process_id=process_id, signal_id=signal_id, sequence=sequence)
        )
        self.counts["signals"] += 1

    async def _surely(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except StoreError:
                self.counts["asked again"] += 1
                await asyncio.sleep(ASKS_AGAIN_AFTER_S)
