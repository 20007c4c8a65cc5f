"""What a store does on its own loop, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure.ids import Ids
from perdure.stores.group_commit import Entry
from perdure.stores.postgres.changes import Changes
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import raise_typed
from perdure.stores.postgres.flushers import Flushers
from perdure.stores.postgres.hints import Hints
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.owner_book import OwnerBook
from perdure.stores.postgres.posted import Deliverer
from perdure.stores.postgres.reader import Reader
from perdure.stores.postgres.schema import ensure_schema
from perdure.stores.postgres.shared import Shared


class Engine:
    """Made and used on the store's own loop. `answer` and `hinted` are called there."""

    def __init__(
        self, loop: OwnLoop, shared: Shared, ids: Ids, answer: Callable[[Sequence[Entry]], None],
        hinted: Callable[[], None],
    ) -> None:  # fmt: skip
        self._shared, self._answer, self._hinted = shared, answer, hinted
        self._seldom = Connections(shared.target, 1)
        self.reader = Reader(loop, shared.target)
        self.flushers = Flushers(loop, shared, ids, self._deliver)
        self.hints = Hints(loop, shared.target, ids, self._hear)
        self.changes = Changes(self.reader, shared, self.hints)
        self.owners = OwnerBook(shared, self.reader, self._seldom, self.changes)
        self.deliverer = Deliverer(loop, shared, ids, self.reader, self.changes)
        self.home = ""
        """What this schema in this database is called: see the migration that makes it."""

    async def open(self) -> None:
        try:
            async with self._seldom.one() as connection:
                await ensure_schema(connection, self._shared.target)
        except Exception as error:
            raise_typed(error, self._shared.store)
        self.home = await self.reader.value("home")
        await self.changes.begin()

    async def close(self) -> None:
        """Answer what was accepted, then let go of everything."""
        await self.flushers.close()
        await self.hints.close()
        await self.deliverer.close()
        await self.reader.close()
        await self._seldom.close()

    def _hear(self) -> None:
        self.changes.hint()
        self._hinted()

    def _deliver(self, entries: Sequence[Entry], wrote: bool) -> None:
        if entries:
            self._answer(entries)
        if wrote:
            self.hints.ring()
