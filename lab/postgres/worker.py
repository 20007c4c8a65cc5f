"""One worker of the PostgreSQL lab: `python -m lab.postgres.worker URL LEDGER SLOT`. It ends when its input does.

SIGUSR1 makes it tell where its tasks stand.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from lab.cluster import end_with_parent
from lab.ledger import Ledger
from lab.postgres.lines import AnyLine, FaultReported, WorkerUp, boot_ms, open_ledger
from lab.postgres.plans import LEASE_TTL_MS, RENEW_EVERY_MS
from lab.postgres.work import define_work
from perdure.contract.ports import WorkerFault
from perdure.errors import StoreError
from perdure.host import Host
from perdure.model.events import Event
from perdure.runtime.options import WorkerOptions

OPTIONS = WorkerOptions(
    concurrency=16, lease_ttl_ms=LEASE_TTL_MS, renew_every_ms=RENEW_EVERY_MS, cancel_grace_ms=500,
    infrastructure_backoff_ms=200,
)  # fmt: skip
PARKING_S = 0.3


class Reporting:
    """A sink that writes a worker's faults down."""

    def __init__(self, ledger: Ledger[AnyLine]) -> None:
        self._ledger, self.incarnation = ledger, ""

    async def emit(self, event: Event) -> None:
        """Events are read from the database."""

    def report(self, fault: WorkerFault) -> None:
        self._ledger.write(
            FaultReported(
                boot_ms=boot_ms(), incarnation=self.incarnation, kind=fault.kind, process_id=fault.process_id,
                message=fault.message, detail=fault.detail,
            )
        )  # fmt: skip


def tell_where_it_stands() -> None:
    """Write to standard error where each task of this program waits, on whichever loop."""
    tasks = [task for task in gc.get_objects() if isinstance(task, asyncio.Task) and not task.done()]
    print(f"{len(tasks)} tasks of worker {os.getpid()}:", file=sys.stderr)
    for task in tasks:
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


async def work(url: str, ledger: Ledger[AnyLine], slot: int) -> None:
    reporting = Reporting(ledger)
    host = Host(url, name=f"worker-{slot}", options=OPTIONS, sink=reporting, parking=PARKING_S, commands=False)
    define_work(host, ledger, lambda: reporting.incarnation)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_where_it_stands)
    told_to_stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not told_to_stop.done():
        try:
            await host.open()
            break
        except StoreError:  # the server is away just now
            await asyncio.sleep(0.1)
    else:
        return
    assert host.worker is not None
    reporting.incarnation = host.worker.owner.incarnation
    ledger.write(WorkerUp(boot_ms=boot_ms(), slot=slot, incarnation=reporting.incarnation, pid=os.getpid()))
    await told_to_stop
    await host.close(grace=timedelta(seconds=5))


def main(arguments: Sequence[str]) -> int:
    url, ledger, slot = arguments
    end_with_parent(signal.SIGKILL)
    if os.getppid() == 1:
        return 1  # it has ended already
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    asyncio.run(work(url, open_ledger(Path(ledger)), int(slot)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
