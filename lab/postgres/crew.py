"""The workers of the lab as programs: started, killed, paused, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[2]
STOPS_WITHIN_S = 30.0


class Crew:
    """One program per slot, each with a URL of its own."""

    def __init__(self, urls: Sequence[str], ledger: Path) -> None:
        self._urls, self._ledger = urls, ledger
        self._programs: dict[int, Process] = {}
        self.ended_by_themselves: list[str] = []

    async def start(self, slot: int) -> None:
        """Start one; what stood in its slot before and was not killed from here has ended by itself."""
        with self.said(slot).open("ab") as errors:
            self._programs[slot] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lab.postgres.worker", self._urls[slot], str(self._ledger), str(slot),
                stdin=PIPE, stdout=DEVNULL, stderr=errors, cwd=PROJECT,
            )  # fmt: skip

    def said(self, slot: int) -> Path:
        """What the programs of a slot wrote to their standard errors."""
        return self._ledger.with_name(f"worker-{slot}.log")

    def pid(self, slot: int) -> int:
        return self._programs[slot].pid

    async def kill(self, slot: int) -> int:
        """SIGKILL; the pid that it had."""
        program = self._programs.pop(slot)
        self._note_own_end(slot, program)
        if program.returncode is None:
            program.kill()
        await program.wait()
        return program.pid

    def pause(self, slot: int) -> None:
        os.kill(self.pid(slot), signal.SIGSTOP)

    def resume(self, slot: int) -> None:
        os.kill(self.pid(slot), signal.SIGCONT)

    def tell_where_they_stand(self) -> None:
        for program in self._programs.values():
            program.send_signal(signal.SIGUSR1)

    async def stop(self) -> None:
        """Have all of them end in good order; what doesn't is killed, and that is a breach."""
        await asyncio.gather(*(self._stop(slot) for slot in list(self._programs)))

    async def _stop(self, slot: int) -> None:
        program = self._programs[slot]
        self._note_own_end(slot, program)
        assert program.stdin is not None
        program.stdin.close()
        try:
            async with asyncio.timeout(STOPS_WITHIN_S):
                code = await program.wait()
        except TimeoutError:
            self.ended_by_themselves.append(f"worker {slot} (pid {program.pid}) did not stop within {STOPS_WITHIN_S} s")
            await self.kill(slot)
            return
        if code != 0:
            self.ended_by_themselves.append(f"worker {slot} (pid {program.pid}) was told to stop and ended with {code}")
        del self._programs[slot]

    async def kill_all(self) -> None:
        for slot in list(self._programs):
            await self.kill(slot)

    def _note_own_end(self, slot: int, program: Process) -> None:
        if program.returncode is not None:
            self.ended_by_themselves.append(f"worker {slot} (pid {program.pid}) has ended with {program.returncode}")
