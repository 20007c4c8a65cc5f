"""What a case is handed: a registry on a store of its own, a clock it moves, and short verbs for commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from perdure import canonical
from perdure.clock import Clock, SystemClock
from perdure.codec import refold
from perdure.contract.registry import Registry
from perdure.model.events import Event
from perdure.model.leases import Lease, LeaseKey, Owner
from perdure.model.outcomes import Completed, Outcome
from perdure.model.queries import Page
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition, Recovery, Registration
from perdure.model.waits import Wait
from perdure.runtime.spawner import LoopSpawner
from perdure.testing.clock import SeededIds
from perdure.testing.conformance.case import Capability, expect, expect_equal, present
from perdure.testing.conformance.clock import SteppedClock
from perdure.transitions.commands import (
    AppendEvent,
    Claimed,
    ClaimNext,
    ClaimReceipt,
    Complete,
    CompletionAuthority,
    Execution,
    LeaseRight,
    Receipt,
    Register,
    Release,
    Renew,
    Renewal,
    RequestAbandon,
    RequestCancel,
    Signal,
    Suspend,
)

T = TypeVar("T")

OpenStore = Callable[[Clock, str], Awaitable[Registry]]
"""Opens the store of that name with that clock. A new name is a new, empty store; where the store is `reopenable` or
`multi_process`, the same name again is the same store."""

WORK = Definition("python", "work")
EXTERNAL = Definition("external", "outside")
TTL_MS = 15_000


def raw(value: object) -> msgspec.Raw:
    """A payload of plain JSON values, as canonical text."""
    return msgspec.Raw(canonical.encode(value))


def registration(id: str, *, recovery: Recovery = "rerunnable", **declared: Any) -> Registration:
    """A registration of WORK (EXTERNAL for externally_owned) with the given fields."""
    definition = EXTERNAL if recovery == "externally_owned" else WORK
    return Registration(**{"id": id, "definition": definition, "recovery": recovery, **declared})


class Kit:
    """One case's world. The first registry is `registry`; `peer()` opens another on the same store (multi_process)."""

    def __init__(self, open_store: OpenStore, store: str, capabilities: frozenset[Capability], seed: int = 0) -> None:
        self._open_store, self._store = open_store, store
        self._registries: list[Registry] = []
        self.capabilities = capabilities
        self.clock, self.ids = SteppedClock(), SeededIds(seed)
        self._loop_clock, self._spawner = SystemClock(), LoopSpawner()

    async def open(self) -> None:
        self._registries.append(await self._open_store(self.clock, self._store))

    @property
    def registry(self) -> Registry:
        return self._registries[0]

    @property
    def now_ms(self) -> int:
        return self.clock.now().wall_ms

    async def reopen(self) -> Registry:
        """Close every registry of this store and open it again: what was acknowledged must be there."""
        expect("reopenable" in self.capabilities, "a case that reopens needs the capability `reopenable`")
        await self.close()
        await self.open()
        return self.registry

    async def peer(self) -> Registry:
        """One more registry on the same store, as another program would open it."""
        expect("multi_process" in self.capabilities, "a case with peers needs the capability `multi_process`")
        await self.open()
        return self._registries[-1]

    async def close(self) -> None:
        registries, self._registries = self._registries, []
        for registry in registries:
            await registry.close()

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 20.0) -> None:
        """Look again until it holds; fail the case if it never does. For what other tasks and threads bring about."""
        try:
            async with asyncio.timeout(within_s):
                while not await holds():
                    await self.pause(0.001)
        except TimeoutError:
            expect(False, f"{what} (within {within_s} s)")

    async def pause(self, seconds: float = 0.0) -> None:
        """Let other tasks and threads go on; in the event loop's time, not the kit's clock."""
        await self._loop_clock.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, T], name: str = "conformance") -> asyncio.Task[T]:
        """Start a task beside the case; whoever starts it awaits it."""
        return self._spawner.spawn(work, name)

    # --- verbs ------------------------------------------------------------------------------------------------

    def owner(self, name: str = "a") -> Owner:
        """A worker's identity: the same name is the same incarnation."""
        return Owner(name, f"{name}-1")

    async def register(self, id: str, *, operation_id: str | None = None, **declared: Any) -> Receipt:
        command = Register(process_id=id, registration=registration(id, **declared), operation_id=operation_id)
        return await self.registry.execute(command)

    def claim_command(self, owner: str = "a", **options: Any) -> ClaimNext:
        """A claim of WORK in the default queue; `options` are fields of ClaimNext."""
        fields = {
            "claim_id": self.ids.token(), "token": self.ids.token(), "owner": self.owner(owner), "limit": 100,
            "ttl_ms": TTL_MS, "definitions": (WORK,),
        }  # fmt: skip
        return ClaimNext(**{**fields, **options})

    async def claim(self, owner: str = "a", **options: Any) -> ClaimReceipt:
        return await self.registry.execute(self.claim_command(owner, **options))

    async def claim_one(self, owner: str = "a", **options: Any) -> Claimed:
        """The one row that is claimable; fails the case if it isn't exactly one."""
        receipt = await self.claim(owner, **options)
        expect_equal(len(receipt.claimed), 1, "the number of rows claimed")
        return receipt.claimed[0]

    async def start(self, id: str, owner: str = "a", **declared: Any) -> Claimed:
        """Register a process and claim it."""
        await self.register(id, **declared)
        return await self.claim_one(owner)

    async def complete(
        self, id: str, by: Claimed | CompletionAuthority, outcome: Outcome | None = None, **options: Any
    ) -> Receipt:
        """Write an end (Completed(null) if none is given) under a lease or another authority."""
        return await self.registry.execute(self.complete_command(id, by, outcome, **options))

    def complete_command(
        self, id: str, by: Claimed | CompletionAuthority, outcome: Outcome | None = None, **options: Any
    ) -> Complete:
        authority = LeaseRight(by.lease.key) if isinstance(by, Claimed) else by
        return Complete(process_id=id, outcome=outcome or Completed(), authority=authority, **options)

    async def append(self, id: str, type: str, value: object = None, **options: Any) -> Receipt:
        """Append an event; `options` are fields of AppendEvent."""
        return await self.registry.execute(AppendEvent(process_id=id, type=type, payload=raw(value), **options))

    async def signal(self, id: str, name: str, value: object = None, signal_id: str | None = None) -> Receipt:
        return await self.registry.execute(Signal(process_id=id, name=name, payload=raw(value), signal_id=signal_id))

    async def suspend(self, claimed: Claimed, *waits: Wait) -> Receipt:
        return await self.registry.execute(
            Suspend(process_id=claimed.record.id, execution=LeaseRight(claimed.lease.key), waits=waits)
        )

    async def release(self, claimed: Claimed, not_entered: str | None = None, hold_ms: int = 0) -> Receipt:
        key = claimed.lease.key
        return await self.registry.execute(
            Release(process_id=key.process_id, key=key, not_entered=not_entered, hold_ms=hold_ms)
        )

    async def renew(self, *keys: LeaseKey, ttl_ms: int = TTL_MS) -> tuple[Renewal, ...]:
        return (await self.registry.execute(Renew(keys=keys, ttl_ms=ttl_ms))).renewals

    async def cancel(self, id: str, reason: str = "asked", by: str | None = None) -> Receipt:
        return await self.registry.execute(RequestCancel(process_id=id, reason=reason, by=by))

    async def abandon(self, id: str, by: str = "operator", reason: str = "gone") -> Receipt:
        return await self.registry.execute(RequestAbandon(process_id=id, by=by, reason=reason))

    def execution(self, claimed: Claimed) -> Execution:
        return LeaseRight(claimed.lease.key)

    def let_lapse(self, claimed: Claimed) -> None:
        """Move the clock to the exact instant at which the lease has expired."""
        left_ms = claimed.lease.boot_expires_ms - self.clock.now().boot_ms
        self.clock.advance(max(0, left_ms) / 1000)

    # --- what stands ------------------------------------------------------------------------------------------

    async def get(self, id: str) -> ProcessRecord:
        return await self.registry.get(id)

    async def lease(self, id: str) -> Lease:
        return present(await self.registry.get_lease(id), f"a lease row of {id!r}")

    async def log(self, id: str) -> Sequence[Event]:
        """The whole log, page by page."""
        events: list[Event] = []
        while True:
            page = await self.registry.events_after(id, events[-1].sequence if events else 0, 500)
            events += page.events
            if not page.more:
                return events

    async def types(self, id: str) -> list[str]:
        """The types of the events of its log, in order."""
        return [event.type for event in await self.log(id)]

    async def check_fold(self, id: str) -> None:
        """A.7: fold(registration, events) equals the stored record field for field, and the log is well formed."""
        record, events = await self.get(id), await self.log(id)
        expect_equal([e.sequence for e in events], list(range(1, len(events) + 1)), f"the sequences of {id!r}")
        folded = refold(record.registration, record.state.created_at_ms, events)
        for field in record.state.__struct_fields__:
            stored, says = getattr(record.state, field), getattr(folded.state, field)
            expect_equal(stored, says, f"the field {field!r} of {id!r}, which its log folds to")
        ends = [e.type for e in events if e.type.removeprefix("process.") in ENDS]
        expect_equal(len(ends), int(record.is_terminal), f"the number of terminal events of {id!r} ({ends})")

    async def check_all_folds(self) -> None:
        """Check every process of the store."""
        after: str | None = None
        while True:
            page = await self.registry.list(page=Page(500, after))
            for record in page.records:
                await self.check_fold(record.id)
                after = record.id
            if not page.more:
                return


ENDS = ("completed", "failed", "cancelled", "abandoned")
