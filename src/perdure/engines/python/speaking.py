"""What one execution says beside its log. Its output is opened with the first word: most processes say none."""

from __future__ import annotations

import threading

import msgspec

from perdure.contract.live import LiveRun
from perdure.contract.ports import Run
from perdure.engines.python.support import Support


class Speaking:
    """Base of an execution."""

    __slots__ = ("_live", "_opening", "_silent")

    run: Run
    support: Support

    def __init__(self) -> None:
        self._live: LiveRun | None = None
        self._opening = threading.Lock()
        self._silent = False

    def publish(self, channel: str, payload: msgspec.Raw, step: str | None) -> None:
        """Any thread. Nothing is said once the lease is lost or the code has returned."""
        if self.run.may_write and (live := self._open()) is not None:
            live.publish(channel, payload, step)

    def _open(self) -> LiveRun | None:
        with self._opening:
            if self._live is None and not self._silent:
                record = self.run.record
                self._live = self.support.open_live(record.id, record.state.attempt, self.run.lease.fence)
            return self._live

    def fall_silent(self) -> None:
        """The code has returned, or was let go of: what a thread of it still says is heard by nobody."""
        with self._opening:
            self._silent = True
        if self._live is not None:
            self._live.close()
