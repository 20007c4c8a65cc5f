"""Keeps the leases of a worker alive, from a thread of its own, whether or not the event loop answers."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future as ThreadFuture
from functools import partial

from perdure.clock import Clock
from perdure.contract.moments import Moments
from perdure.contract.ports import WorkerFault
from perdure.contract.registry import Registry
from perdure.errors import PerdureError
from perdure.model.leases import LeaseKey
from perdure.runtime.options import WorkerOptions
from perdure.runtime.run import ActiveRun, Stop
from perdure.runtime.spawner import Spawner, WorkThread
from perdure.transitions.commands import Renew, Renewal, RenewReceipt

LARGEST_RENEWAL = 1_000

logger = logging.getLogger("perdure")


class LeaseKeeper:
    """Renews what the worker holds, stops what it has lost, and watches the loop.

    A run is stopped at its local deadline (boot time, counted from before the claim or renewal was sent), whether or
    not a renewal call has returned: what the store says later can't bring it back.
    """

    def __init__(
        self,
        registry: Registry,
        options: WorkerOptions,
        clock: Clock,
        spawner: Spawner,
        report: Callable[[WorkerFault], None],
        lost: Callable[[ActiveRun, Stop], None],
        moments: Moments,
        runs: Mapping[str, ActiveRun],
    ) -> None:
        self._registry, self._options, self._clock = registry, options, clock
        self._spawner, self._report, self._lost = spawner, report, lost
        self._moments = moments
        self._runs = runs  # the runner's own; read here in one step (`tuple`), written on the loop only
        self._wake = threading.Event()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._loop_seen_ms = 0
        self._loop_reported = self._let_go = False
        self._thread: WorkThread | None = None
        self._task: asyncio.Task[None] | None = None
        self._next_renewal_ms = 0
        self._in_flight: ThreadFuture[RenewReceipt] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        now_ms = self._clock.now().boot_ms
        self._loop_seen_ms, self._next_renewal_ms = now_ms, now_ms + self._options.renew_every_ms
        self._thread = self._spawner.start_thread(self._run_thread, "perdure-lease-keeper")
        if self._thread is None:
            self._task = self._spawner.spawn(self._run_task(), "perdure-lease-keeper")

    async def stop(self) -> None:
        self._closing = True
        self._wake.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._thread is not None:
            await self._spawner.in_thread(self._thread.join)

    # --- the two ways to keep time ----------------------------------------------------------------------------

    def _run_thread(self) -> None:
        while not self._closing:
            self._wake.wait(self._tick_safely() / 1000)
            self._wake.clear()

    async def _run_task(self) -> None:
        while not self._closing:
            await self._clock.sleep(self._tick_safely() / 1000)

    def _tick_safely(self) -> int:
        """A bug in one look must not cost every lease: the next look is made all the same."""
        try:
            return self._tick()
        except Exception:
            logger.exception("lease keeper: a look has failed; the next one follows")
            return self._options.renew_every_ms // 4 + 1

    def _tick(self) -> int:
        """Do what is due; the milliseconds until the next look."""
        now_ms = self._clock.now().boot_ms
        self._watch_loop(now_ms)
        self._stop_expired(now_ms)
        self._take_answer()
        if now_ms >= self._next_renewal_ms and self._in_flight is None and self._loop_is_trusted(now_ms):
            self._next_renewal_ms = now_ms + self._options.renew_every_ms
            self._renew(now_ms)
            self._take_answer()
        wait_ms = min(self._options.renew_every_ms, max(1, self._options.blocked_loop_ms)) // 4
        return max(1, min(wait_ms, 250 if self._in_flight is None else 20))

    # --- leases -----------------------------------------------------------------------------------------------

    def _renew(self, now_ms: int) -> None:
        held = [run for run in tuple(self._runs.values()) if run.stop is None or run.stop.kind != "lease_lost"]
        keys = tuple(run.lease.key for run in held)
        for at in range(0, len(keys), LARGEST_RENEWAL):
            page = keys[at : at + LARGEST_RENEWAL]
            try:
                sent = self._registry.renew_from_thread(Renew(keys=page, ttl_ms=self._options.lease_ttl_ms))
            except PerdureError as error:
                self._failed(error)
                return
            sent.add_done_callback(partial(self._answered, page, now_ms))
            self._in_flight = sent

    def _take_answer(self) -> None:
        if self._in_flight is not None and self._in_flight.done():
            self._in_flight = None

    def _failed(self, error: BaseException) -> None:
        self._tell_loop(self._report, WorkerFault("infrastructure", "leases could not be renewed", None, str(error)))

    def _answered(self, keys: tuple[LeaseKey, ...], sent_ms: int, done: ThreadFuture[RenewReceipt]) -> None:
        """In whatever thread the store answers."""
        self._moments.reached("renewal.answered")
        error = done.exception()
        if error is not None:
            self._next_renewal_ms = sent_ms + self._options.renew_every_ms // 5  # sooner than the usual round
            self._failed(error)
            return
        deadline_ms = sent_ms + self._options.lease_ttl_ms - self._options.local_margin_ms
        for key, renewal in zip(keys, done.result().renewals, strict=True):
            self._renewed(key, renewal, deadline_ms)

    def _renewed(self, key: LeaseKey, renewal: Renewal, deadline_ms: int) -> None:
        run = self._runs.get(key.process_id)
        if run is None or run.lease.fence != key.fence:  # it has ended meanwhile
            return
        if not renewal.held:
            self._tell_loop(self._lost, run, Stop("lease_lost", "its lease was superseded"))
            return
        run.local_deadline_ms = max(run.local_deadline_ms, deadline_ms)
        if renewal.lease is not None:
            run.lease = renewal.lease
        if renewal.cancel_reason is not None and run.stop is None:
            self._tell_loop(self._lost, run, Stop("cancel_requested", renewal.cancel_reason, renewal.cancel_by))

    def _stop_expired(self, now_ms: int) -> None:
        expired = [run for run in tuple(self._runs.values()) if run.local_deadline_ms <= now_ms]
        for run in expired:
            if run.stop is None or run.stop.kind != "lease_lost":
                self._tell_loop(self._lost, run, Stop("lease_lost", "its lease could not be renewed in time"))

    # --- the loop ---------------------------------------------------------------------------------------------

    def _watch_loop(self, now_ms: int) -> None:
        if self._thread is None:
            return
        silent_ms = now_ms - self._loop_seen_ms
        if silent_ms > self._options.blocked_loop_ms and not self._loop_reported:
            self._loop_reported = True
            frame = sys._current_frames().get(self._loop_thread)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
            self._report_blocked(f"the event loop has not answered for {silent_ms} ms", stack)
        self._tell_loop(self._loop_answered)

    def _loop_answered(self) -> None:
        self._loop_seen_ms = self._clock.now().boot_ms
        self._loop_reported = self._let_go = False

    def _loop_is_trusted(self, now_ms: int) -> bool:
        """A loop that has been silent beyond the second bound no longer keeps its leases."""
        if self._thread is None or now_ms - self._loop_seen_ms <= self._options.let_go_ms:
            return True
        if not self._let_go:
            self._let_go = True
            self._report_blocked(f"the loop is blocked beyond {self._options.let_go_ms} ms: its leases are let go")
        return False

    def _report_blocked(self, message: str, stack: str = "") -> None:
        """Faults are reported on the loop, which is blocked: so it is logged here and now as well."""
        logger.error("blocked_loop: %s%s", message, f"\n{stack}" if stack else "")
        self._tell_loop(self._report, WorkerFault("blocked_loop", message, None, stack))

    def _tell_loop(self, what: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(what, *arguments)
            except RuntimeError:  # closed in between: there is nobody left to tell
                return
