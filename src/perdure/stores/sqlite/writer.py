"""The writer: one thread that owns the one connection on which this program writes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from perdure.clock import Clock
from perdure.contract.moments import Moments
from perdure.errors import DecodeError, StoreClosed, StoreLocked
from perdure.stores.group_commit import LARGEST_BATCH, Entry, ThreadFuture, commit_entries
from perdure.stores.sqlite.connection import typed, unknown_commit
from perdure.stores.sqlite.queue_lock import WriteQueue
from perdure.stores.sqlite.rows import BEGIN, COMMIT, ROLLBACK, SqliteRows

T = TypeVar("T")

LOCK_BOUND_MS = 10_000
BATCH_BOUND_MS = 20
Deliver = Callable[[Sequence[Entry], bool], bool]


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("a row primitive of the SQLite store has waited")


def _refused_in_bulk(error: BaseException) -> bool:
    """Whether the fault may lie in one of the commands: what the database refuses, a value that can't be written, or a
    damaged row that one names."""
    return isinstance(error, apsw.ConstraintError | DecodeError | ValueError | OverflowError)


class Writer:
    """Takes what callers have queued, commits it in batches of about 20 ms, and hands the answers to `deliver`.

    `deliver(entries, wrote)` is called in this thread after each batch, in commit order; it answers whether other
    programs may want to write.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        path: Path,
        queue: WriteQueue,
        clock: Clock,
        deliver: Deliver,
        moments: Moments,
        lock_bound_ms: int = LOCK_BOUND_MS,
    ) -> None:
        self._lock_bound_ms = lock_bound_ms
        self._connection, self._store = connection, f"sqlite:///{path}"
        self._queue, self._clock, self._deliver = queue, clock, deliver
        self.rows = SqliteRows(connection, self._store, clock, self._begin, moments)
        self._wake = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._jobs: deque[tuple[Callable[[apsw.Connection], Any], ThreadFuture[Any]]] = deque()
        self._closing = False
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._batch_limit = LARGEST_BATCH
        self._thread = threading.Thread(target=self._run, name="perdure-sqlite-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, entry: Entry, *, first: bool = False) -> None:
        """Queue an entry; `first` puts it before everything that waits. Any thread."""
        with self._wake:
            if self._closing:
                raise StoreClosed(self._store, "the store was closed", "Open it again.")
            if first:
                self._entries.appendleft(entry)
            else:
                self._entries.append(entry)
            self._wake.notify()

    def submit_all(self, entries: Sequence[Entry]) -> None:
        """Queue entries in order. Any thread; after `stop` only what was accepted before it."""
        with self._wake:
            idle = not self._entries
            self._entries.extend(entries)
            if idle:
                self._wake.notify()

    def call(self, job: Callable[[apsw.Connection], T]) -> ThreadFuture[T]:
        """Have `job` done on the writer's connection between two batches. Any thread."""
        future: ThreadFuture[T] = ThreadFuture()
        with self._wake:
            if self._closing:
                raise StoreClosed(self._store, "the store was closed", "Open it again.")
            self._jobs.append((job, future))
            self._wake.notify()
        return future

    def write(self, job: Callable[[apsw.Connection], None]) -> ThreadFuture[None]:
        """The same, in a transaction of its own."""

        def in_transaction(connection: apsw.Connection) -> None:
            self._begin()
            try:
                job(connection)
                connection.execute(COMMIT)
            except BaseException:
                if connection.in_transaction:
                    connection.execute(ROLLBACK)
                raise

        return self.call(in_transaction)

    def stop(self) -> ThreadFuture[None]:
        """Commit what was accepted, then end. The future is done when nothing more will be."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        return self._ended

    def join(self) -> None:
        """After the future of `stop` is done: wait for the thread's very end, which is then a moment away."""
        self._thread.join()

    # --- in the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._entries or self._jobs or self._closing):
                    self._wake.wait()
                jobs, self._jobs = list(self._jobs), deque()
                entries = self._take()
                if not entries and not jobs and self._closing:
                    break
            for job, future in jobs:
                self._do(job, future)
            if entries:
                try:
                    self._commit(entries)
                except Exception as error:  # a bug of ours: nobody may be left waiting for an answer
                    self._give_up(entries, error)
                    break
        self._ended.set_result(None)

    def _give_up(self, entries: Sequence[Entry], error: Exception) -> None:
        with self._wake:
            self._closing = True
            left = [*entries, *self._entries]
            self._entries.clear()
        for entry in left:
            entry.results, entry.error = [], error
        self._deliver(left, False)

    def _take(self) -> list[Entry]:
        """Whole entries up to the batch limit, or one that writes in its transaction; what callers have withdrawn is
        dropped here."""
        batch: list[Entry] = []
        size = 0
        while self._entries and (not batch or size + len(self._entries[0].commands) <= self._batch_limit):
            if batch and (self._entries[0].work or batch[0].work):
                break
            entry = self._entries.popleft()
            if not entry.withdrawn():
                batch.append(entry)
                size += len(entry.commands)
        return batch

    def _commit(self, entries: Sequence[Entry]) -> None:
        began_ms, position = self._clock.now().boot_ms, self.rows.position
        finish(commit_entries(self.rows, entries, _refused_in_bulk))
        took_ms, size = self._clock.now().boot_ms - began_ms, sum(len(entry.commands) for entry in entries)
        if took_ms > BATCH_BOUND_MS and size >= self._batch_limit // 2:
            self._batch_limit = max(16, self._batch_limit // 2)
        elif took_ms < BATCH_BOUND_MS // 2:
            self._batch_limit = min(LARGEST_BATCH, self._batch_limit * 2)
        for entry in entries:
            if isinstance(entry.error, apsw.Error):
                entry.error = unknown_commit(entry.error, self._store)
        wrote = self.rows.position != position
        if self._deliver(entries, wrote) and wrote:
            self._queue.let_others_write()

    def _do(self, job: Callable[[apsw.Connection], Any], future: ThreadFuture[Any]) -> None:
        try:
            future.set_result(job(self._connection))
        except apsw.Error as error:
            future.set_exception(typed(error, self._store))
        except Exception as error:  # handed to whoever asked for the job
            future.set_exception(error)

    def _begin(self) -> None:
        """Take the write lock within its bound, saying to other programs that one more waits."""
        try:
            self._connection.execute(BEGIN)
        except apsw.BusyError:
            deadline_ms = self._clock.now().boot_ms + self._lock_bound_ms
            with self._queue.waiting():
                while not self._try_begin():
                    if self._clock.now().boot_ms >= deadline_ms:
                        raise StoreLocked(
                            self._store,
                            f"another program has held the write lock for {self._lock_bound_ms} ms",
                            "Find the program that holds a write transaction open, and try again.",
                        ) from None
                    self._queue.pause()

    def _try_begin(self) -> bool:
        try:
            self._connection.execute(BEGIN)
        except apsw.BusyError:
            return False
        return True
