"""Programs of the operating system that a test started, known by a mark in their environment."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.model.outcomes import Failed
from perdure.runtime.options import WorkerOptions

LONGEST_WAIT_S = 20.0

PYTHON = (sys.executable, "-I", "-S", "-c")

SLEEPS = "import time\nprint('ready', flush=True)\ntime.sleep(600)"

IGNORES_SIGTERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS

LEAVES_A_DAEMON = """
import os, time
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        print('daemon', os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.waitpid(first, 0)
"""
"""A grandchild in a session of its own, whose parent has ended; the command goes on behind it."""


RUNS_AWAY = """
import os, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
end = time.monotonic() + 60
for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < end and os.fork() == 0:
            time.sleep(0.0005)
        os._exit(0)
time.sleep(60)
"""
"""Ten descendants, each of which is a new program, with a new parent, twice a millisecond or so.

They end by themselves: if the test's own process is killed, nobody is left who could catch them.
"""

IS_A_SUBREAPER = "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"


class Programs:
    """What was seen alive with the mark; zombies have no environment, so they are known by pid and start alone."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.env = {"TEST_MARK": self.mark}
        self._seen: set[tuple[int, int]] = set()

    def alive(self) -> set[int]:
        """The pids of those that run now."""
        found = {pid for pid in all_pids() if self._is_marked(pid)}
        self._seen |= {(pid, start_of(pid)) for pid in found}
        return found

    def follow(self, pid: int) -> None:
        """Count one without the mark among them: a supervisor."""
        self._seen.add((pid, start_of(pid)))

    def left(self) -> set[int]:
        """Those that are still there, zombies too."""
        return self.alive() | {pid for pid, start in self._seen if start != -1 and start_of(pid) == start}

    def _is_marked(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"TEST_MARK={self.mark}".encode() in file.read().split(b"\0")
        except OSError:
            return False


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def start_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return -1


async def until(fact: Callable[[], bool]) -> None:
    """Wait until it is so; fails if it never is."""
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not fact():  # noqa: ASYNC110 - what other programs do sets no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_host(url: str = "memory://", **options: Any) -> AsyncIterator[Host]:
    async with asyncio.timeout(60), Host(url, options=WorkerOptions(**options)) as host:
        yield host


async def events_of(handle: Handle[Any], event_type: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(e.payload) async for e in handle.events(follow=False) if e.type == event_type]


async def lines_of(handle: Handle[Any], stream: str = "stdout") -> list[str]:
    """All its stored lines, once it has ended."""
    await handle.outcome()
    return [line for said in await events_of(handle, "output") if said["stream"] == stream for line in said["lines"]]


async def first_line(host: Host, handle: Handle[Any]) -> str:
    event = await host.driver.await_event(handle.id, "output")
    line: str = msgspec.json.decode(event.payload)["lines"][0]
    return line


async def failure_of(handle: Handle[Any]) -> tuple[str | None, str]:
    """Its code and message; it has failed, for good."""
    outcome = await handle.outcome()
    assert isinstance(outcome, Failed), outcome
    assert (outcome.error.type, outcome.error.retryable) == ("CommandFailed", False)
    return outcome.error.code, outcome.error.message
