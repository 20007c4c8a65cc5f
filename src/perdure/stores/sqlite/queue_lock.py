"""Fairness between programs that write to one file: SQLite's write lock is not fair, so waiting is made visible.

A program that waits for the write lock holds a shared lock on a file beside the database. A program that has just
committed tries that lock exclusively: if it can't have it, somebody waits, and it pauses before its next batch.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.errors import StoreUnavailable

RETRY_S = 0.0005
YIELD_S = 0.004


class WriteQueue:
    """One program's place in the queue. Used from its writer thread only."""

    def __init__(self, folder: Path, store: str) -> None:
        path = folder / "writers.queue"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            problem = f"{path} can't be opened ({error.strerror})"
            raise StoreUnavailable(store, problem, "Check its permissions.") from error

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Others can see that we wait while this block runs."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def let_others_write(self) -> None:
        """Pause if anybody waits."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._pause_s(YIELD_S)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def pause(self) -> None:
        """The wait between two tries for the write lock."""
        self._pause_s(RETRY_S)

    @staticmethod
    def _pause_s(seconds: float) -> None:
        threading.Event().wait(seconds)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
