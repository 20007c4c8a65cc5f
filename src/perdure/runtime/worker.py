"""The worker: claims rows it can run and has permits for, and runs them. A host drives it; it never polls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal

import msgspec

from perdure.clock import Clock, SystemClock
from perdure.contract.moments import Moments, NoMoments
from perdure.contract.ports import AdmissionReport, DeferredRow, Engine, WorkerFault
from perdure.contract.registry import Registry, Undelivered
from perdure.errors import OutcomeUnknown, PerdureError, StoreClosed, StoreError
from perdure.ids import Ids, SystemIds
from perdure.model.leases import DeathProof, Owner
from perdure.model.registration import Definition
from perdure.runtime.duties import do_duties
from perdure.runtime.options import WorkerOptions
from perdure.runtime.run import ActiveRun
from perdure.runtime.runner import Runner
from perdure.runtime.spawner import LoopSpawner, Spawner, noted
from perdure.runtime.watch import log_fault
from perdure.transitions.commands import AnyReceipt, ClaimNext, ClaimReceipt, Receipt, RowCommand
from perdure.transitions.projection import lane

Asked = Awaitable[list[AnyReceipt | PerdureError]]


class Drained(msgspec.Struct, frozen=True):
    """What became of one run when the worker stopped."""

    process_id: str
    became: Literal["finished", "released", "abandoned", "lost"]


class Claims(msgspec.Struct, frozen=True):
    """What a claim brought: processes begun here, and those whose earlier run is still cleaning up here. `no_permit`:
    it was not made, as no permit was free."""

    begun: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    no_permit: bool = False

    def and_then(self, later: Claims) -> Claims:
        return Claims(self.begun + later.begun, self.busy + later.busy, self.ended + later.ended, later.no_permit)


class DurableProcessWorker:
    """Runs durable processes in this program. A run handle: a host drives it, it never polls.

    It holds as many permits as `options.concurrency` and claims only what it has permits for, and only definitions
    that its engines know. What it starts it owns until the end is written, the lease is lost, or it drains.

    `commit` writes what ends a run; without it the registry's `execute` does. With an engine whose code can say how far
    it has come it must be the `ProgressBook.commit` of the book that the engine notes it in: it takes the last value
    along, which is refused once the run has ended.
    """

    def __init__(
        self,
        registry: Registry,
        engines: Sequence[Engine],
        *,
        name: str = "worker",
        options: WorkerOptions | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        spawner: Spawner | None = None,
        report: Callable[[WorkerFault], None] | None = None,
        moments: Moments | None = None,
        commit: Callable[[RowCommand], Awaitable[Receipt]] | None = None,
    ) -> None:
        self._registry, self._engines = registry, tuple(engines)
        self.options = options or WorkerOptions()
        self._clock, self._ids = clock or SystemClock(), ids or SystemIds()
        self._spawner = spawner or LoopSpawner()
        self._report_to, self._moments = report or log_fault, moments or NoMoments()
        self.owner = Owner(name, self._ids.token())
        self._runner = Runner(
            registry, engines, self.owner, self.options, self._clock, self._ids, self._spawner, self._report,
            self._moments, self._refill, commit,
        )  # fmt: skip
        self._proofs: tuple[DeathProof, ...] = ()
        self.undelivered = 0
        """How many posted signals could not be delivered here: each is a fault that was reported."""
        self._more = False
        self._refill_due = self._holds_off = False
        self._claiming: asyncio.Task[Claims] | None = None
        self._enrolling = asyncio.Lock()
        self._said: tuple[Definition, ...] = ()
        self._starting = 0
        self._all_started = asyncio.Event()
        self._state: Literal["new", "serving", "draining", "stopped"] = "new"

    def _report(self, fault: WorkerFault) -> None:
        self._report_to(fault)

    # --- surface ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> tuple[str, ...]:
        """The processes that this worker runs now."""
        return tuple(self._runner.runs)

    @property
    def free_permits(self) -> int:
        """How many more processes may be claimed now."""
        return self._runner.room

    def definitions(self) -> tuple[Definition, ...]:
        return tuple(sorted({d for engine in self._engines for d in engine.definitions}))

    def lanes(self) -> list[str]:
        return [lane(queue, definition) for queue in self.options.queues for definition in self.definitions()]

    def knows(self, definition: Definition) -> bool:
        return any(definition in engine.definitions for engine in self._engines)

    def report_to(self, report: Callable[[WorkerFault], None]) -> None:
        """Have faults reported there from now on; a driver with a sink does it for its worker."""
        self._report_to = report

    async def start(self) -> None:
        """Enrol as an owner and begin to keep leases. Driving does it if it wasn't done."""
        if self._state != "new":
            return
        async with self._enrolling:  # a failure leaves it to the next drive, and nobody claims before it is done
            if self._state == "new":
                await self._enrol()
                await self._enrolled()

    async def _enrol(self) -> None:
        """Say who this is and what it can run, also when that has changed since."""
        can_run = self.definitions()
        await self._registry.enrol(self.owner, can_run)
        self._said = can_run

    async def _enrolled(self) -> None:
        if self._state == "new":
            self._state = "serving"
            self._runner.keeper.start()
        else:  # it was told to stop meanwhile
            await self._registry.withdraw(self.owner)

    async def prove_deaths(self) -> bool:
        """Look for owners that can be proved dead; whether another one was. The next claim takes their rows over."""
        known = {proof.incarnation for proof in self._proofs}
        self._proofs = await self._registry.prove_deaths()
        return any(proof.incarnation not in known for proof in self._proofs)

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        await self.start()
        if self._state == "serving" and self._said != self.definitions():
            await self._enrol()
        now = self._registry.now()
        duties = self._spawner.spawn(  # what is to run need not wait for them
            do_duties(self._registry, self.owner, now, self._proofs, self._tell_undelivered), "perdure-duties"
        )
        duties.add_done_callback(noted)
        try:
            claims = await self._claim_for_permits()
        finally:
            await asyncio.wait({duties})
        done = duties.result()
        if done.woke:
            claims = claims.and_then(await self._claim_for_permits())
        # After the moment at which this drive began: what fell due since may have been too late for the claim.
        next_due_at_ms = await self._registry.next_due_at_ms(self.lanes(), now)
        ended = done.ended + claims.ended
        return AdmissionReport("scanned", reason, claims.begun, self._deferred(claims), ended, next_due_at_ms)

    async def _claim_for_permits(self) -> Claims:
        """Claim as many rows as there are free permits."""
        if self._state != "serving" or self.free_permits == 0:
            self._more = self._state == "serving"
            return Claims(no_permit=True)
        return await self._claim()

    def _deferred(self, claims: Claims) -> tuple[DeferredRow, ...]:
        """What was not begun, and why."""
        busy = [DeferredRow(id, "busy", "an earlier run of it is still cleaning up here") for id in claims.busy]
        if claims.no_permit:
            held = f"{self._runner.permits.held} of {self._runner.permits.limit} are held"
            return (*busy, DeferredRow(None, "no_permit", held))
        return tuple(busy)

    def _tell_undelivered(self, one: Undelivered) -> None:
        self.undelivered += 1
        became = "stays posted" if one.kept else "was refused after its commit, and is dropped"
        self._report(WorkerFault("undelivered", f"a posted signal {became}", one.process_id, str(one.error)))

    def claim_for_start(self) -> ClaimNext | None:
        """A claim to be committed together with a registration, if a permit is free now and nothing waits for it.

        Whatever comes of it, tell `run_claimed`.
        """
        if self._state != "serving" or self.free_permits == 0 or self._more:
            return None
        self._runner.permits.take(1)
        self._starting += 1
        return self._claim_command(1)

    def run_claimed(self, receipt: ClaimReceipt | None, sent_boot_ms: int) -> None:
        """Run what `claim_for_start` claimed; None if the claim was not made after all."""
        self._moments.reached("claim.committed")
        if receipt is None or not receipt.claimed:
            self._runner.permits.give_back()
        else:
            self._begin(receipt, sent_boot_ms)
        self._starting -= 1
        if self._starting == 0:
            self._all_started.set()

    def cancel_local(self, process_id: str, reason: str, by: str | None) -> None:
        """Tell a run of this worker at once that its cancellation was requested."""
        self._runner.cancel(process_id, reason, by)

    async def drain(self, grace_ms: int | None = None) -> tuple[Drained, ...]:
        """Stop: no new claims, a grace for what runs, then give back what may be run again and tell of what may not.

        Rerunnable work is released for peers; entered owner_bound work of this owner is written
        Abandoned(owner_drain). Leases are kept until the last run has ended.
        """
        if self._state in ("draining", "stopped"):
            return ()
        started, self._state = self._state != "new", "draining"
        async with self._enrolling:
            pass
        if self._claiming is not None and not self._claiming.done():
            await asyncio.wait({self._claiming})
        while self._starting:  # what is claimed together with its registration is about to run
            self._all_started.clear()
            await self._all_started.wait()
        runs = await self._runner.drain(self.options.drain_grace_ms if grace_ms is None else grace_ms)
        if started:
            await self._runner.keeper.stop()
            try:
                await self._registry.withdraw(self.owner)
            except StoreError as error:  # its row stays, and others can prove that it has gone
                self._report(WorkerFault("infrastructure", "the owner was not withdrawn", None, str(error)))
        self._state = "stopped"
        return tuple(Drained(id, _became(run)) for id, run in runs.items())

    # --- claiming ---------------------------------------------------------------------------------------------

    def _claim_command(self, limit: int) -> ClaimNext:
        return ClaimNext(
            claim_id=self._ids.token(),
            token=self._ids.token(),
            owner=self.owner,
            limit=limit,
            ttl_ms=self.options.lease_ttl_ms,
            definitions=self.definitions(),
            queues=self.options.queues,
            proofs=self._proofs,
        )

    async def _claim(self) -> Claims:
        """Claim for all free permits. The claim belongs to the worker: a caller that gives up can't strand its rows."""
        if self._claiming is not None and not self._claiming.done():
            self._more = True
            await asyncio.wait({self._claiming})
            return Claims()
        return await asyncio.shield(self._start_claim())

    def _start_claim(self) -> asyncio.Task[Claims]:
        """Hand a claim to the store in this very turn of the loop: it joins the commit of the ends before it."""
        limit = self.free_permits
        self._runner.permits.take(limit)
        self._more = False
        command, sent_ms = self._claim_command(limit), self._clock.now().boot_ms
        asked = self._registry.execute_together((command,))
        self._claiming = self._spawner.spawn(self._claim_and_begin(command, asked, sent_ms), "perdure-claim")
        self._claiming.add_done_callback(self._claim_ended)
        return self._claiming

    async def _claim_and_begin(self, command: ClaimNext, asked: Asked, sent_ms: int) -> Claims:
        spare = command.limit
        try:
            again = partial(self._registry.execute_together, (command,))
            (receipt,) = await self.ask_until_known(asked, again, sent_ms)
            if isinstance(receipt, PerdureError):
                raise receipt
            assert isinstance(receipt, ClaimReceipt)
            self._moments.reached("claim.committed")
            self._more = self._more or len(receipt.claimed) + len(receipt.ended) >= command.limit
            spare -= len(receipt.claimed)
            return self._begin(receipt, sent_ms)
        except Exception as error:
            if not isinstance(error, StoreClosed):
                self._hold_off(error)
            raise
        finally:
            self._runner.permits.give_back(spare)

    def _begin(self, receipt: ClaimReceipt, sent_boot_ms: int) -> Claims:
        begun: list[str] = []
        busy: list[str] = []
        for claimed in receipt.claimed:
            (begun if self._runner.begin(claimed, sent_boot_ms) else busy).append(claimed.record.id)
        return Claims(tuple(begun), tuple(busy), tuple(record.id for record in receipt.ended))

    def _hold_off(self, error: Exception) -> None:
        """A claim has failed. What waits for a permit is known to nobody else, so it is claimed again after a while."""
        self._report(WorkerFault("dispatcher", "claiming failed and is tried again", None, repr(error)))
        self._more = True
        if not self._holds_off:
            self._holds_off = True
            asyncio.get_running_loop().call_later(self.options.infrastructure_backoff_ms / 1000, self._claim_again)

    def _claim_again(self) -> None:
        self._holds_off = False
        self._refill()

    def _claim_ended(self, done: asyncio.Task[Claims]) -> None:
        noted(done)
        self._refill()

    async def ask_until_known(
        self, asked: Asked, again: Callable[[], Asked], sent_boot_ms: int, *, lost: bool = False
    ) -> list[AnyReceipt | PerdureError]:
        """Ask for a claim until its answer is known: the same claim id returns the same rows and claims nothing new.

        Once an answer was `lost`, rows may be leased that nobody runs: then no failure of the store ends the asking,
        until they must have lapsed.
        """
        until_ms, backoff_s = sent_boot_ms + self.options.lease_ttl_ms, 0.01
        while True:
            try:
                return await asked
            except StoreClosed:
                raise
            except StoreError as error:
                lost = lost or isinstance(error, OutcomeUnknown)
                if not lost or self._clock.now().boot_ms >= until_ms:
                    raise
                self._report(WorkerFault("infrastructure", "the answer of a claim was lost", None, str(error)))
            await self._clock.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, 1.0)
            asked = again()

    def _refill(self) -> None:
        """Permits are free: claim again if the last claim left something behind; once for all that come free now."""
        if self._more and not (self._refill_due or self._holds_off) and self._state == "serving":
            self._refill_due = True
            asyncio.get_running_loop().call_soon(self._refill_now)

    def _refill_now(self) -> None:
        self._refill_due = False
        busy = self._claiming is not None and not self._claiming.done()
        if self._more and self._state == "serving" and not busy and self.free_permits:
            self._start_claim()


def _became(run: ActiveRun) -> Literal["finished", "released", "abandoned", "lost"]:
    if run.record.is_terminal:
        return "abandoned" if run.record.status == "abandoned" else "finished"
    return "lost" if run.stop is not None and run.stop.kind == "lease_lost" else "released"
