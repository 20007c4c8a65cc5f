"""Group commit: commands that arrive while a transaction is in flight form the next one. No timer, no added wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass, field
from typing import Any

from perdure.contract.registry import TransactionWork
from perdure.errors import PerdureError
from perdure.stores.registry import Result, transact, transact_within
from perdure.stores.rows import LentFailure, Rows
from perdure.transitions.commands import Command

LARGEST_BATCH = 1_024


@dataclass(eq=False, slots=True)
class Entry:
    """Commands of one caller that are committed together, and whom to tell.

    `waiting` is an asyncio future (resolved on its loop) or a thread's future; a caller that gave up while its entry
    was still waiting withdraws it whole. An entry with `work`, which makes its one command in the transaction, is a
    batch by itself.
    """

    commands: Sequence[Command]
    waiting: Any
    work: TransactionWork | None = None
    results: list[Result] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def in_thread(self) -> bool:
        """Whether its caller waits in a thread."""
        return isinstance(self.waiting, ThreadFuture)

    def withdrawn(self) -> bool:
        return bool(self.waiting.cancelled())

    def tell(self) -> None:
        """Answer the caller, if it still listens: one result for one command asked by itself, else the list."""
        if self.waiting.done():
            return
        if self.error is not None:
            self.waiting.set_exception(self.error.error if isinstance(self.error, LentFailure) else self.error)
        else:
            self.waiting.set_result(self.results)


async def commit_entries(
    rows: Rows, entries: Sequence[Entry], refused_in_bulk: Callable[[BaseException], bool]
) -> None:
    """Commit the entries in one transaction and fill in their results or errors; never raises for the store's sake.

    If the database refuses the bulk write itself, each entry gets a transaction of its own, so one that can't be
    written harms no other.
    """
    try:
        if entries[0].work is not None:
            results = [await transact_within(rows, entries[0].work)]
        else:
            results = await transact(rows, [command for entry in entries for command in entry.commands])
    except Exception as error:  # whatever it is, its callers must be told
        if len(entries) > 1 and refused_in_bulk(error):
            for entry in entries:
                await commit_entries(rows, [entry], refused_in_bulk)
            return
        for entry in entries:
            entry.error = error
        return
    at = 0
    for entry in entries:
        count = 1 if entry.work is not None else len(entry.commands)
        entry.results = results[at : at + count]
        at += count


def single(results: list[Result]) -> Any:
    """The receipt of a command that was asked by itself; its refusal is raised."""
    (result,) = results
    if isinstance(result, PerdureError):
        raise result
    return result


__all__ = ["LARGEST_BATCH", "Entry", "ThreadFuture", "commit_entries", "single"]
