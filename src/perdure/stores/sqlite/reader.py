"""The reader: one thread with a connection that can't write. Point reads that arrive together become one statement."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from perdure.codec import decode_registration, decode_state
from perdure.errors import DecodeError, PerdureError, StoreClosed
from perdure.model.record import ProcessRecord, ProcessState
from perdure.model.registration import Registration
from perdure.stores.group_commit import ThreadFuture
from perdure.stores.sqlite.connection import typed
from perdure.stores.sqlite.rows import as_text

T = TypeVar("T")

_decode_records = msgspec.json.Decoder(list[tuple[Registration, ProcessState]]).decode

Found = ProcessRecord | PerdureError | None


class Reader:
    """Runs reads one after the other; each is a short read transaction of its own."""

    def __init__(self, connection: apsw.Connection, path: Path, sql: dict[str, str]) -> None:
        self._connection, self._store, self._sql = connection, f"sqlite:///{path}", sql
        self._wake = threading.Condition()
        self._jobs: deque[tuple[Callable[[apsw.Connection], Any], ThreadFuture[Any]]] = deque()
        self._wanted: list[tuple[Collection[str], asyncio.Future[dict[str, Found]]]] = []
        self._closing = False
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._thread = threading.Thread(target=self._run, name="perdure-sqlite-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, job: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Run `job` on the connection, in the thread."""
        future: ThreadFuture[T] = ThreadFuture()
        with self._wake:
            self._check_open()
            self._jobs.append((job, future))
            self._wake.notify()
        return asyncio.wrap_future(future)

    def records(self, process_ids: Collection[str]) -> asyncio.Future[dict[str, Found]]:
        """Records by id, None where there is none. Calls that wait for the thread share one statement."""
        future: asyncio.Future[dict[str, Found]] = asyncio.get_running_loop().create_future()
        with self._wake:
            self._check_open()
            self._wanted.append((process_ids, future))
            self._wake.notify()
        return future

    def stop(self) -> ThreadFuture[None]:
        """Answer what was asked, then end. The future is done when nothing more will be read."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        return self._ended

    def join(self) -> None:
        """After the future of `stop` is done: wait for the thread's very end, which is then a moment away."""
        self._thread.join()

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed(self._store, "the store was closed", "Open it again.")

    # --- in the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._jobs or self._wanted or self._closing):
                    self._wake.wait()
                wanted, self._wanted = self._wanted, []
                jobs, self._jobs = list(self._jobs), deque()
                if not wanted and not jobs:
                    break
            if wanted:
                self._read_records(wanted)
            for job, future in jobs:
                self._do(job, future)
        self._ended.set_result(None)

    def _read_records(self, wanted: Sequence[tuple[Collection[str], asyncio.Future[dict[str, Found]]]]) -> None:
        found: dict[str, Found] = {}
        failed: Exception | None = None
        try:
            found = self._records(list({id for ids, _ in wanted for id in ids if id.isascii()}))  # others can't exist
        except apsw.Error as error:
            failed = typed(error, self._store)
        except Exception as error:  # told to whoever asked: the thread reads on
            failed = error

        def answer() -> None:
            for ids, future in wanted:
                if future.done():
                    continue
                if failed is not None:
                    future.set_exception(failed)
                else:
                    future.set_result({id: found.get(id) for id in ids})

        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            wanted[0][1].get_loop().call_soon_threadsafe(answer)

    def _records(self, ids: list[str]) -> dict[str, Found]:
        try:
            text = self._connection.execute(self._sql["records"], {"ids": as_text(ids)}).get
            return {r.id: ProcessRecord(r, state) for r, state in _decode_records(text)}
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {id: self._record(id) for id in ids}

    def _record(self, id: str) -> Found:
        row = self._connection.execute(self._sql["record"], {"id": id}).fetchone()
        if row is None:
            return None
        try:
            return ProcessRecord(decode_registration(row[0], id), decode_state(row[1], id))
        except DecodeError as error:
            return error

    def _do(self, job: Callable[[apsw.Connection], Any], future: ThreadFuture[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job(self._connection))
        except apsw.Error as error:
            future.set_exception(typed(error, self._store))
        except UnicodeDecodeError as error:
            future.set_exception(DecodeError(f"{self._store}: a row is damaged: {error}"))
        except Exception as error:  # handed to whoever asked
            future.set_exception(error)
