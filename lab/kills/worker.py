"""A worker of the kill lab: starts and runs work as told, and kills itself at the moment it was given."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lab.kills.ledgers import Killed, Ledgers, StartAnswered, StartAsked, WorkerUp
from lab.kills.work import Work, define_work
from lab.ledger import Ledger
from lab.program import ChildChannel, Program
from perdure.contract.moments import MomentName
from perdure.engines.python.definitions import Process
from perdure.errors import PerdureError
from perdure.host import Host
from perdure.runtime.options import WorkerOptions

OPTIONS = WorkerOptions(concurrency=8, lease_ttl_ms=900, renew_every_ms=300, cancel_grace_ms=500)


class KillAt:
    """Moments at one of which this program kills itself: at the n-th time that it is reached after arming."""

    def __init__(self, kills: Ledger[Killed]) -> None:
        self._kills = kills
        self._lock = threading.Lock()
        self._armed: str | None = None
        self._hits_left = 0

    def arm(self, moment: str, hits: int) -> None:
        with self._lock:
            self._armed, self._hits_left = moment, hits

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        with self._lock:
            if moment != self._armed:
                return
            self._hits_left -= 1
            if self._hits_left:
                return
            self._kills.write(Killed(moment, os.getpid(), process_id))
            os.kill(os.getpid(), signal.SIGKILL)


def spawn_worker(database: Path, ledgers: Ledgers) -> Program:
    """Start a worker. It obeys `start` (ids, kinds, takes_ms), `arm` (moment, hits) and `stop` (grace_ms)."""
    return Program.fork(lambda channel: asyncio.run(_work(channel, database, ledgers)))


async def _work(channel: socket.socket, database: Path, ledgers: Ledgers) -> None:
    logging.basicConfig(filename=database.with_name("faults.log"), format="%(process)d %(message)s")
    moments = KillAt(ledgers.kills)
    host = Host(f"sqlite:///{database}", name=f"worker-{os.getpid()}", options=OPTIONS, moments=moments)
    incarnations: list[str] = []
    work = define_work(host, ledgers.entries, lambda: incarnations[0])
    commands = await ChildChannel.on(channel)
    await host.open()
    assert host.worker is not None
    incarnations.append(host.worker.owner.incarnation)
    ledgers.workers.write(WorkerUp(incarnations[0], os.getpid()))
    grace_ms = 0
    async with asyncio.TaskGroup() as starting:
        while (command := await commands.hear()) is not None:
            if command["do"] == "arm":
                moments.arm(command["moment"], command["hits"])
            elif command["do"] == "start":
                starting.create_task(_start(host, work, ledgers, command["what"]))
            else:
                grace_ms = command["grace_ms"]
                break
    await host.close(grace=timedelta(milliseconds=grace_ms))


async def _start(
    host: Host, work: dict[str, Process[Work, Any]], ledgers: Ledgers, what: Sequence[tuple[str, str, int]]
) -> None:
    """Start each (id, kind, takes_ms): the first half one by one, the others together."""
    half = len(what) // 2
    for process_id, kind, takes_ms in what[:half]:
        await _start_one(host, work[kind], ledgers, process_id, Work(takes_ms))
    async with asyncio.TaskGroup() as together:
        for process_id, kind, takes_ms in what[half:]:
            together.create_task(_start_one(host, work[kind], ledgers, process_id, Work(takes_ms)))


async def _start_one(host: Host, process: Process[Work, Any], ledgers: Ledgers, process_id: str, work: Work) -> None:
    ledgers.asked.write(StartAsked(process_id, process.name))
    try:
        await host.start(process, work, id=process_id)
    except PerdureError as error:
        ledgers.answered.write(StartAnswered(process_id, f"{type(error).__name__}: {error}"))
    else:
        ledgers.answered.write(StartAnswered(process_id))
