"""Serving: what drives a worker. One loop that sleeps until something relevant has happened; nothing is polled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from perdure.clock import Clock
from perdure.contract.ports import AdmissionReport, WorkerFault
from perdure.contract.registry import Registry
from perdure.errors import StoreClosed
from perdure.model.queries import Explanation
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.live import LiveHub
from perdure.runtime.progress import ProgressBook
from perdure.runtime.spawner import Spawner
from perdure.runtime.worker import Drained, DurableProcessWorker
from perdure.transitions.commands import AnyReceipt, ClaimReceipt, Receipt
from perdure.transitions.explain import explain
from perdure.transitions.projection import project
from perdure.transitions.reach import Reach

SAFETY_INTERVAL_S = 1.0
"""How often the change position is read in case a hint from another program was lost."""


class Serving:
    """Keeps a driver driven: at its opening, on commits of this and other programs, at due times, on proofs of death.

    Without a worker it only passes on what other programs commit, for the sake of waiters here.
    """

    def __init__(
        self,
        registry: Registry,
        driver: ProcessWorkDriver,
        worker: DurableProcessWorker | None,
        live: LiveHub,
        progress: ProgressBook,
        clock: Clock,
        spawner: Spawner,
        report: Callable[[WorkerFault], None],
    ) -> None:
        self.registry, self.driver, self.worker, self.live = registry, driver, worker, live
        self._progress = progress
        self._clock, self._spawner, self._report = clock, spawner, report
        self._ends: list[Callable[[], None]] = []
        self._reason: str | None = None
        self._hinted = True
        self._next_due_ms: int | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_report: AdmissionReport | None = None

    async def start(self) -> None:
        self._ends = [self.registry.observe(self._committed), self.registry.on_peer_hint(self._hint)]
        if self.worker is not None:
            try:
                await self.worker.start()
            except BaseException:
                self._end_hearing()
                raise
            self.request("opened")
        self._task = self._spawner.spawn(self._serve(), "perdure-serve")
        self._task.add_done_callback(self._ended)

    async def stop(self, grace_ms: int | None = None) -> tuple[Drained, ...]:
        """Drain the worker, then end the loop."""
        try:
            return () if self.worker is None else await self.worker.drain(grace_ms)
        finally:
            self._end_hearing()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            await self._progress.stop()
            await self.driver.finish()

    def _end_hearing(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    def request(self, reason: str) -> None:
        """Ask for a drive; asking again before it happens changes nothing. Without a worker nothing is driven."""
        if self.worker is None:
            return
        self._reason = self._reason or reason
        self._wake.set()

    def tell_cancelled(self, process_id: str, reason: str, by: str | None) -> None:
        """A cancel request was just committed here: if this program runs the process, tell it at once."""
        if self.worker is not None:
            self.worker.cancel_local(process_id, reason, by)

    async def explain(self, process_id: str) -> Explanation:
        record = await self.registry.get(process_id)
        lease = await self.registry.get_lease(process_id)
        return explain(record, lease, self.registry.now(), Reach(await self.registry.enrolled()))

    # --- what has happened ------------------------------------------------------------------------------------

    def _committed(self, receipts: Sequence[AnyReceipt]) -> None:
        """Note when what was just committed falls due; what a claim took falls due when its lease would lapse."""
        if self.worker is None:
            return
        claimed = {c.record.id: c.lease for r in receipts if isinstance(r, ClaimReceipt) for c in r.claimed}
        for lease in claimed.values():
            self._due_at(lease.expires_at_ms)
            break  # one claim, one expiry
        for receipt in receipts:
            if isinstance(receipt, Receipt) and receipt.process_id not in claimed:
                self._note(self.worker, receipt)

    def _note(self, worker: DurableProcessWorker, receipt: Receipt) -> None:
        state = receipt.record.state
        given_back = receipt.lease is not None and receipt.lease.released
        if state.outcome is not None:
            if state.settle_due_at_ms is not None:
                self._due_at(state.settle_due_at_ms)
        elif (given_back or state.status != "running") and worker.knows(receipt.record.registration.definition):
            p = project(receipt.record)
            hold_ms = receipt.lease.expires_at_ms if receipt.lease is not None and given_back else None
            for due_ms in (p.ready_at_ms, p.deadline_at_ms, hold_ms):
                if due_ms is not None:
                    self._due_at(due_ms)

    def _due_at(self, due_ms: int) -> None:
        if self._next_due_ms is None or due_ms < self._next_due_ms:
            self._next_due_ms = due_ms
            self._wake.set()

    def _hint(self) -> None:
        self._hinted = True
        self._wake.set()

    # --- the loop ---------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        last_look_ms = 0
        while True:
            now = self._clock.now()
            if self._hinted or now.boot_ms - last_look_ms >= SAFETY_INTERVAL_S * 1000:
                self._hinted, last_look_ms = False, now.boot_ms
                await self._look_at_peers()
            if self._next_due_ms is not None and self._next_due_ms <= self.registry.now().wall_ms:
                self.request("due")
            if self._reason is not None and self.worker is not None:
                await self._drive()
            await self._sleep(last_look_ms)

    async def _sleep(self, last_look_ms: int) -> None:
        """Until something happens, the next due time, or the safety interval is over."""
        wait_s = SAFETY_INTERVAL_S - (self._clock.now().boot_ms - last_look_ms) / 1000
        if self._next_due_ms is not None:
            wait_s = min(wait_s, (self._next_due_ms - self.registry.now().wall_ms) / 1000)
        if wait_s > 0 and self._reason is None:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()

    async def _look_at_peers(self) -> None:
        try:
            changed = await self.registry.peer_changes()
            if changed is None:
                self.driver.change_hub.publish_all()
            else:
                self.driver.change_hub.publish(changed)
            if changed is None or changed:
                self.request("peer commit")
            if self.worker is not None and await self.worker.prove_deaths():
                self.request("owner proved dead")
        except StoreClosed:
            raise
        except Exception as error:  # a look that fails is made again: serving goes on
            self._report(WorkerFault("infrastructure", "other programs' commits could not be read", None, str(error)))

    async def _drive(self) -> None:
        reason, self._reason = self._reason or "due", None
        self._next_due_ms = None
        try:
            self.last_report = report = await self.driver.claim_and_run_pending(reason)
        except StoreClosed:
            raise
        except Exception as error:  # the next drive tries again: a dispatcher that dies by a bug stops nothing
            self._report(WorkerFault("dispatcher", f"a drive ({reason}) failed", None, repr(error)))
            self._next_due_ms = self.registry.now().wall_ms + int(SAFETY_INTERVAL_S * 1000)
            return
        due_ms = report.next_due_at_ms
        if report.intake == "coalesced":  # the report of the rescan goes to whoever scans: look again soon
            due_ms = self.registry.now().wall_ms + int(SAFETY_INTERVAL_S * 1000)
        if due_ms is not None and (self._next_due_ms is None or due_ms < self._next_due_ms):
            self._next_due_ms = due_ms

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, StoreClosed):
            self._report(WorkerFault("dispatcher", "serving has ended by a bug", None, repr(error)))
