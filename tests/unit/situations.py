"""Rows in every situation they can be in, for tests of the pure floors: made by folding literal facts."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.clock import Moment
from perdure.model.events import (
    AbandonRequested,
    AnyFact,
    CallerDeparture,
    CancelRequested,
    ProcessAdmitted,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    ProcessWaiting,
    RetryScheduled,
    SignalReceived,
)
from perdure.model.leases import Lease, Owner
from perdure.model.outcomes import ErrorDetail
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition, Recovery, Registration, RetryPolicy
from perdure.model.waits import SignalWait
from perdure.transitions.decision import Standing
from perdure.transitions.fold import fold

ANYTHING = msgspec.Raw(b"{}")
WORK, OUTSIDE = Definition("python", "work"), Definition("external", "outside")
A, B = Owner("a", "a-1"), Owner("b", "b-1")
NOW = Moment(100_000, 50_000, "boot-1")


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def registration(recovery: Recovery = "rerunnable", **declared: Any) -> Registration:
    definition = OUTSIDE if recovery == "externally_owned" else WORK
    return Registration(**{"id": "p", "definition": definition, "recovery": recovery, **declared})


def record(of: Registration, *facts: AnyFact, at_ms: int = 1_000) -> ProcessRecord:
    """The record of a process registered at `at_ms`, with one of these facts every second after it."""
    return fold(of, at_ms, [(n, at_ms + 1_000 * n, fact) for n, fact in enumerate(facts, 1)])


def lease(fence: int = 1, *, owner: Owner = A, left_ms: int = 5_000, **changed: Any) -> Lease:
    """A lease of "p" that expires `left_ms` after NOW on both scales."""
    granted = Lease(
        "p", owner, f"token-{fence}", fence, f"claim-{fence}", 90_000, NOW.wall_ms + left_ms, "boot-1",
        NOW.boot_ms + left_ms,
    )  # fmt: skip
    return msgspec.structs.replace(granted, **changed)


def started(fence: int = 1, attempt: int = 1, owner: Owner = A) -> ProcessStarted:
    return ProcessStarted(owner, fence, attempt, f"claim-{fence}")


STARTED = started()
DONE = ProcessCompleted("lease", 1, "a-1", raw("1"))

# What was said, and the lease that stands: every status, with every kind of lease that it can have.
HISTORIES: dict[str, tuple[tuple[AnyFact, ...], Lease | None]] = {
    "pending": ((), None),
    "pending, admitted": ((ProcessAdmitted("w"),), None),
    "pending, retry due later": ((STARTED, RetryScheduled(ErrorDetail("E"), 1, 900_000, 1)), None),
    "pending, cancel requested": (
        (STARTED, CancelRequested("enough"), RetryScheduled(ErrorDetail("E"), 1, 900_000, 1)), None,
    ),
    "running": ((STARTED,), lease()),
    "running, lapsed": ((STARTED,), lease(left_ms=0)),
    "running, released": ((STARTED,), lease(released=True, left_ms=-1)),
    "running, released with a hold": ((STARTED,), lease(released=True)),
    "running, of another boot": ((STARTED,), lease(boot_id="boot-0")),
    "running, cancel requested": ((STARTED, CancelRequested("enough", "someone")), lease()),
    "running, abandon requested": ((STARTED, AbandonRequested("operator", "gone")), lease()),
    "running, abandon requested and lapsed": ((STARTED, AbandonRequested("operator", "gone")), lease(left_ms=0)),
    "running in an engine": ((ProcessAdmitted("w"), ProcessStarted(A, 1, 1, "i-1", None, "w")), None),
    "waiting in an engine": (
        (ProcessAdmitted("w"), ProcessStarted(A, 1, 1, "i-1", None, "w"), ProcessWaiting((SignalWait("go", 1),), 1)),
        None,
    ),
    "waiting": ((STARTED, ProcessWaiting((SignalWait("go", 1),), 1)), None),
    "waiting, signalled": (
        (STARTED, ProcessWaiting((SignalWait("go", 1),), 1), SignalReceived(name="go", payload=raw("1"))), None,
    ),
    "completed": ((STARTED, DONE), None),
    "failed": ((STARTED, ProcessFailed("lease", 1, "a-1", error=ErrorDetail("E"))), None),
    "caller departed": ((CallerDeparture("gone"),), None),
}  # fmt: skip


def standings() -> dict[str, Standing]:
    """Every situation under every recovery that can come to it, by a name for the test's report."""
    found: dict[str, Standing] = {"unknown": Standing()}
    for name, (facts, standing_lease) in HISTORIES.items():
        for recovery in ("rerunnable", "owner_bound", "externally_owned"):
            outside, departed = recovery == "externally_owned", name == "caller departed"
            if outside != departed and not (outside and name == "pending"):
                continue
            retry = RetryPolicy() if recovery == "rerunnable" else None
            declared = registration(recovery, signals={"go": ANYTHING}, retry=retry)
            found[f"{recovery}: {name}"] = Standing(record(declared, *facts), standing_lease)
    return found
