"""The callers of a store on their event loop: what they ask in one turn is handed over, and answered, together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress

from perdure.contract.registry import CommitListener, TransactionWork
from perdure.errors import ForkedConnection, PerdureError, StoreClosed
from perdure.stores.group_commit import Entry, single
from perdure.stores.registry import Result
from perdure.transitions.commands import AnyReceipt, Command, Renew, RenewReceipt


class Callers:
    """Made on the loop that uses the store. `hand_over` takes what was gathered to whoever commits it, which calls
    `answer` from any thread."""

    def __init__(self, store: str, hand_over: Callable[[list[Entry]], None]) -> None:
        self._store, self._hand_over_to = store, hand_over
        self._pid, self.loop = os.getpid(), asyncio.get_running_loop()
        self._listeners: list[CommitListener] = []
        self._gathered: list[Entry] = []
        self.closed = False

    @property
    def forked(self) -> bool:
        """Whether this is another program than the one that opened the store."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise ForkedConnection or StoreClosed if nothing may be asked any more."""
        if self.forked:
            raise ForkedConnection(
                self._store, "it was opened before a fork", "Open the host in the process that uses it."
            )
        if self.closed:
            raise StoreClosed(self._store, "the store was closed", "Open it again.")

    def close(self) -> None:
        """Hand over what was gathered; nothing may be asked any more."""
        self._hand_over()
        self.closed = True

    def submit(self, commands: Sequence[Command], work: TransactionWork | None = None) -> asyncio.Future[list[Result]]:
        """What is submitted in one turn of the loop reaches the store together: one hand-over, one batch."""
        future: asyncio.Future[list[Result]] = self.loop.create_future()
        if not commands and work is None:
            self.check()
            future.set_result([])
            return future
        if not self._gathered:
            self.check()
            self.loop.call_soon(self._hand_over)
        self._gathered.append(Entry(commands, future, work))
        return future

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._hand_over_to(gathered)

    def renewal(self, command: Renew) -> tuple[Entry, ThreadFuture[RenewReceipt]]:
        """The entry of a renewal, for any thread, and what its caller waits for."""
        self.check()
        answers: ThreadFuture[list[Result]] = ThreadFuture()
        renewed: ThreadFuture[RenewReceipt] = ThreadFuture()

        def answer(done: ThreadFuture[list[Result]]) -> None:
            try:
                renewed.set_result(single(done.result()))
            except Exception as error:  # told to whoever renews
                renewed.set_exception(error)

        answers.add_done_callback(answer)
        return Entry((command,), answers), renewed

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def answer(self, entries: Sequence[Entry]) -> None:
        """From any thread: tell the callers on the loop, in one call; those in threads are the store's to tell."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._answer, entries)

    def _answer(self, entries: Sequence[Entry]) -> None:
        committed = (entry for entry in entries if entry.error is None)
        self.publish([r for entry in committed for r in entry.results if not isinstance(r, PerdureError)])
        for entry in entries:
            if not entry.in_thread:
                entry.tell()

    def publish(self, receipts: Sequence[AnyReceipt]) -> None:
        """Tell the listeners what was committed."""
        for listener in tuple(self._listeners) if receipts else ():
            listener(receipts)
