"""What a command did, as events of its process's log."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure import canonical
from perdure.contract.ports import Run
from perdure.engines.command.link import BoundReached, Ended, Lines, Started
from perdure.engines.python.support import Support
from perdure.errors import Refused, StoreClosed, StoreError
from perdure.transitions.commands import AppendEvent, LeaseRight

BACKOFF_S, BACKOFF_CAP_S = 0.02, 1.0


class CommandLog:
    """Appends under the run's lease, in order. A store that fails is asked again for as long as the lease may stand:
    the supervisor keeps the output meanwhile, and the command never waits."""

    def __init__(self, run: Run, support: Support) -> None:
        self._run, self._support = run, support
        self._count = 0
        self._closed = False

    async def started(self, started: Started) -> None:
        await self._append("started", msgspec.to_builtins(started))

    async def output(self, output: Lines) -> None:
        lines = [shown(line) for line in output.lines]
        payload = {
            "stream": output.stream, "lines": [text for text, _ in lines], "truncated": output.is_cut,
            "sanitised": any(changed for _, changed in lines),
        }  # fmt: skip
        await self._append("output", payload)

    async def bound_reached(self, reached: BoundReached) -> None:
        """From here on output is counted and not stored."""
        payload = {
            "stream": reached.stream, "lines": [], "truncated": True, "sanitised": False, "bound": reached.bound
        }  # fmt: skip
        await self._append("output", payload)

    async def ended(self, ended: Ended, code: str) -> None:
        counts = {name: getattr(ended, name) for name in COUNTED}
        await self._append("exited", {"code": code, "left": ended.left, **counts})

    async def _append(self, event_type: str, payload: dict[str, Any]) -> None:
        if self._closed:
            return
        self._count += 1
        command = AppendEvent(
            process_id=self._run.record.id,
            type=event_type,
            payload=msgspec.Raw(canonical.encode(payload)),
            replay_key=f"command:{self._run.lease.fence}:{self._count}",  # asked again after a lost answer
            execution=LeaseRight(self._run.lease.key),
        )
        backoff_s = BACKOFF_S
        while self._run.may_write:
            try:
                await self._support.registry.execute(command)
                return
            except (Refused, StoreClosed):  # somebody else owns the truth, or it was told already
                break
            except StoreError:
                await self._support.clock.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_CAP_S)
        self._closed = True


COUNTED = ("stdout_lines", "stdout_bytes", "stderr_lines", "stderr_bytes", "stored_lines")


def shown(line: bytes) -> tuple[str, bool]:
    """A line as text that can be stored, and whether that changed it."""
    text = line.decode("utf-8", "surrogateescape")
    return canonical.sanitize(text, max_chars=len(text))
