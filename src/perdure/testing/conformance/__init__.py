"""The conformance kit: what every store must do, as cases that a store author runs on their own store.

    async def open_store(clock: Clock, store: str) -> Registry:
        return await MyRegistry.open(folder / store, clock=clock)      # the same name again is the same store

    reports = await run_all(open_store, frozenset({"reopenable"}), cases())
    assert not [report for report in reports if report.failure]

Each case runs on a store of its own, under a clock that it moves itself, and ends by refolding every log.
"""

from __future__ import annotations

from perdure.testing.conformance import (
    authority,
    beside,
    boundary,
    claims,
    draining,
    driving,
    durable_cancels,
    durable_steps,
    durable_waits,
    failures,
    leases,
    log,
    pure,
    recovery,
    registration,
    requests,
    serving,
    waiting,
    watching,
)
from perdure.testing.conformance.case import (
    Capability,
    Case,
    CaseFailed,
    case,
    expect,
    expect_equal,
    present,
    refusal,
)
from perdure.testing.conformance.clock import SteppedClock
from perdure.testing.conformance.kit import Kit, OpenStore
from perdure.testing.conformance.runner import CaseReport, run_all, run_case, runnable

_MODULES: tuple[tuple[Case, ...], ...] = (
    registration.CASES,
    log.CASES,
    boundary.CASES,
    claims.CASES,
    leases.CASES,
    authority.CASES,
    requests.CASES,
    recovery.CASES,
    failures.CASES,
    waiting.CASES,
    watching.CASES,
    driving.CASES,
    serving.CASES,
    draining.CASES,
    beside.CASES,
    durable_steps.CASES,
    durable_waits.CASES,
    durable_cancels.CASES,
    pure.CASES,
)


def cases() -> tuple[Case, ...]:
    """Every case, in the order of the contract."""
    return tuple(found for module in _MODULES for found in module)


__all__ = [
    "Capability", "Case", "CaseFailed", "CaseReport", "Kit", "OpenStore", "SteppedClock", "case", "cases", "expect",
    "expect_equal", "present", "refusal", "run_all", "run_case", "runnable",
]  # fmt: skip
