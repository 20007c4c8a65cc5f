"""The PostgreSQL registry: one schema, shared by as many hosts as there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from typing import Any, TypeVar

from perdure.clock import Clock, Moment
from perdure.contract.moments import Moments, NoMoments
from perdure.contract.registry import CommitListener, Delivery, TransactionWork
from perdure.errors import PerdureError, StoreClosed
from perdure.ids import Ids, SystemIds
from perdure.model.leases import DeathProof, Enrolment, Owner
from perdure.model.registration import Definition
from perdure.stores.callers import Callers
from perdure.stores.group_commit import LARGEST_BATCH, Entry, single
from perdure.stores.live import LocalWire
from perdure.stores.postgres.engine import Engine
from perdure.stores.postgres.joined import Joiner
from perdure.stores.postgres.lending import Lender
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.reads import PostgresReads
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.url import Target, parse_url
from perdure.stores.registry import Result
from perdure.transitions.commands import Command, Receipt, Register, Renew, RenewReceipt, RowCommand, Signal

T = TypeVar("T")


class PostgresRegistry(PostgresReads):
    """A registry in one schema of a PostgreSQL database. Made by `open`; used on the event loop that opened it.

    Every acknowledged command is on the server's disk. Any number of programs on any number of machines may share it;
    the server's clock decides about leases and due times.
    """

    def __init__(self, target: Target, clock: Clock | None, moments: Moments, ids: Ids) -> None:
        own = OwnLoop(target.name)
        super().__init__(own, Callers(target.name, lambda asked: own.soon(self._engine.flushers.submit, asked)))
        self.name = target.name
        self.live_wire = LocalWire()
        self._shared = Shared(target, clock, moments)
        self._hint_listeners: list[Callable[[], None]] = []
        self._ids = ids
        self._lender = Lender(self._shared)
        self._ended: ThreadFuture[None] | None = None
        self._joiner: Joiner | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        schema: str | None = None,
        *,
        clock: Clock | None = None,
        moments: Moments | None = None,
        ids: Ids | None = None,
    ) -> PostgresRegistry:
        """Connect, and make the schema or bring it forward. `clock` decides instead of the server's: tests move it.

        Raises InvalidOption, ForeignStore, NewerSchema, StoreCorrupt, StoreReadOnly or StoreUnavailable; each names
        the store and what to do, and none a password.
        """
        registry = cls(parse_url(url, schema), clock, moments or NoMoments(), ids or SystemIds())
        registry._own.start()
        try:
            registry._engine = await registry._call(registry._start())
        except BaseException:
            await asyncio.wrap_future(registry._own.stop())
            raise
        return registry

    async def _start(self) -> Engine:
        engine = Engine(self._own, self._shared, self._ids, self._deliver, self._hinted)
        try:
            await engine.open()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def close(self) -> None:
        if self._callers.forked:
            return
        self._callers.close()
        await self._lender.close()
        if self._ended is None:
            self._ended = self._own.stop(self._engine.close())
        await asyncio.shield(asyncio.wrap_future(self._ended))  # it goes on though whoever closes gives up

    def now(self) -> Moment:
        return self._shared.time.now()

    # --- commands ---------------------------------------------------------------------------------------------

    async def execute(self, command: Command) -> Any:
        return single(await self._callers.submit((command,)))

    def execute_together(self, commands: Sequence[Command]) -> asyncio.Future[list[Result]]:
        return self._callers.submit(commands)

    async def execute_all(self, commands: Sequence[Command]) -> list[Result]:
        """Commands that name their row go singly, in the batches of whichever flusher is free. What befell the store in
        one of them stands in its place, unless it befell all."""
        if all(isinstance(command, RowCommand) for command in commands):
            parts: list[Sequence[Command]] = [(command,) for command in commands]
        else:
            parts = [commands[at : at + LARGEST_BATCH] for at in range(0, len(commands), LARGEST_BATCH)]
        answers = await asyncio.gather(*map(self._callers.submit, parts), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(failures) == len(parts) or not all(isinstance(failure, PerdureError) for failure in failures):
            for failure in failures:
                raise failure
        results: list[Result] = []
        for part, answer in zip(parts, answers, strict=True):
            results += [answer] * len(part) if isinstance(answer, PerdureError) else answer  # type: ignore[arg-type]
        return results

    async def execute_within(self, work: TransactionWork) -> Any:
        self._callers.check()
        result = await self._lender.execute(work)
        if isinstance(result, PerdureError):
            raise result
        self._callers.publish([result])
        self._ring()
        return result

    def _ring(self) -> None:
        """Tell other programs what was committed. Who can't be told looks by itself."""
        with suppress(StoreClosed):
            self._own.soon(self._engine.hints.ring)

    # --- in transactions of the caller's own ------------------------------------------------------------------

    async def register_joined(self, command: Register, connection: object) -> Receipt:
        return await self._joining().register(command, connection)

    async def post(self, command: Signal, connection: object) -> None:
        await self._joining().post(command, connection)

    def _joining(self) -> Joiner:
        self._callers.check()
        if self._joiner is None:
            self._joiner = Joiner(self._shared, self._engine.home)
        return self._joiner

    async def deliver_posted(self) -> Delivery:
        delivery = await self._call(self._engine.deliverer.deliver())
        if delivery.receipts:
            self._callers.publish(delivery.receipts)
            self._ring()
        return delivery

    # ----------------------------------------------------------------------------------------------------------

    def renew_from_thread(self, command: Renew) -> ThreadFuture[RenewReceipt]:
        entry, renewed = self._callers.renewal(command)
        self._own.soon(self._engine.flushers.submit, [entry])
        return renewed

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        return self._callers.observe(listener)

    def _deliver(self, entries: Sequence[Entry]) -> None:
        """On the store's own loop: answer threads one by one, and the user's loop in one call."""
        for entry in entries:
            if entry.in_thread:
                asyncio.get_running_loop().call_soon(entry.tell)  # what whoever hears it raises is not ours
        self._callers.answer(entries)

    # --- other programs ---------------------------------------------------------------------------------------

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None = None) -> None:
        await self._call(self._engine.owners.enrol(owner, definitions))

    async def enrolled(self) -> tuple[Enrolment, ...]:
        return await self._call(self._engine.owners.enrolled())

    def lifeline(self, incarnation: str) -> int | None:
        return None

    async def withdraw(self, owner: Owner) -> None:
        await self._call(self._engine.owners.withdraw(owner))

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        return await self._call(self._engine.owners.prove_deaths())

    def on_peer_hint(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._callers.check()
        self._own.soon(self._engine.hints.listen)
        self._hint_listeners.append(listener)
        return lambda: self._hint_listeners.remove(listener)

    def _hinted(self) -> None:
        """On the store's own loop."""
        with suppress(RuntimeError):  # the loop was closed: nobody listens any more
            self._callers.loop.call_soon_threadsafe(self._tell_hinted)

    def _tell_hinted(self) -> None:
        for listener in tuple(self._hint_listeners):
            listener()

    async def peer_changes(self) -> Sequence[str] | None:
        return await self._call(self._engine.changes.look())
