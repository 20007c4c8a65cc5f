"""One program of the durable lab: `python -m lab.durable.program`. It goes on with the function, and dies when told.

Arguments: the database, the ledger, the function's size as JSON, and when to die: `journal` (right after the first
thing it has written into a journal), the number of a commit, or `never`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lab.durable.work import PROCESS_ID, SIGNALS, RunBegan, Size, StepDone, define_long, go
from lab.ledger import Ledger
from perdure.contract.moments import MomentName
from perdure.errors import ProcessAlreadyTerminal, UnknownProcess
from perdure.host import Host
from perdure.model.events import JOURNAL_PREFIXES
from perdure.runtime.options import WorkerOptions
from perdure.transitions.commands import AnyReceipt, Receipt

OPTIONS = WorkerOptions(concurrency=4, lease_ttl_ms=3_000, renew_every_ms=1_000)
PARKING_S = 0.02


class DieAtCommit:
    """Dies right after the n-th commit of this program; None: never."""

    def __init__(self, number: int | None) -> None:
        self._left = number
        self._lock = threading.Lock()

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if self._left is None or moment != "commit.after":
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def die_after_journal(receipts: Sequence[AnyReceipt]) -> None:
    """Dies right after a commit that has written into a journal, before anybody hears of it."""
    for receipt in receipts:
        if isinstance(receipt, Receipt) and not receipt.replayed:
            for event in receipt.events:
                if event.type.startswith(JOURNAL_PREFIXES):
                    os.kill(os.getpid(), signal.SIGKILL)


async def run(database: Path, ledger_path: Path, size: Size, dies: str) -> list[int]:
    ledger: Ledger[StepDone | RunBegan] = Ledger(ledger_path, StepDone | RunBegan)  # type: ignore[arg-type]  # a union
    moments = DieAtCommit(int(dies) if dies.isdigit() else None)
    host = Host(f"sqlite:///{database}", options=OPTIONS, moments=moments, parking=PARKING_S)
    long = define_long(host, ledger)
    reader = Host(f"sqlite:///{database}", work=False)
    async with reader:
        ledger.write(RunBegan(os.getpid(), tuple(await finished_steps(reader))))
    async with host, asyncio.timeout(50):
        if dies == "journal":
            host.registry.observe(die_after_journal)
        run = await host.start(long, size, id=PROCESS_ID)
        for number in range(SIGNALS):
            try:
                await run.signal(go, 1, id=f"go-{number}")
            except ProcessAlreadyTerminal:
                break
        return await run.result()


async def finished_steps(host: Host) -> list[str]:
    """The steps whose results are in a log, as the ledger names them."""
    found: list[str] = []
    for record in (await host.list()).records:
        try:
            page = await host.registry.events_after(record.id, 0, 10_000)
        except UnknownProcess:
            continue
        entries = (msgspec.json.decode(e.payload) for e in page.events if e.type == "step.completed")
        found += [msgspec.json.decode(entry["arguments"])[0] for entry in entries]
    return found


def main(arguments: Sequence[str]) -> int:
    database, ledger, size, dies = arguments
    print(asyncio.run(run(Path(database), Path(ledger), msgspec.json.decode(size, type=Size), dies)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
