"""Running cases: each on a store of its own, each ended by refolding every log, hot and reopened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.testing.conformance.case import Capability, Case
from perdure.testing.conformance.kit import Kit, OpenStore


@dataclass(frozen=True)
class CaseReport:
    """What became of one case: `failure` is what it raised, None if it held."""

    case: Case
    failure: BaseException | None = None


async def run_case(case: Case, open_store: OpenStore, capabilities: frozenset[Capability], *, seed: int = 0) -> None:
    """Run one case on a new store; raises CaseFailed, or whatever the store raised, if it doesn't hold."""
    kit = Kit(open_store, f"case-{case.id.lower().replace('.', '-')}", capabilities, seed)
    try:
        await kit.open()
        await case.run(kit)
        await kit.check_all_folds()
        if "reopenable" in capabilities:
            await kit.reopen()
            await kit.check_all_folds()
    finally:
        await kit.close()


async def run_all(
    open_store: OpenStore, capabilities: frozenset[Capability], cases: Sequence[Case], *, seed: int = 0
) -> list[CaseReport]:
    """Run every case whose needs the capabilities cover, one after the other; never stops at a failure."""
    reports = []
    for case in runnable(cases, capabilities):
        try:
            await run_case(case, open_store, capabilities, seed=seed)
        except Exception as failure:  # a store may fail in any way: that is what the report is for
            reports.append(CaseReport(case, failure))
        else:
            reports.append(CaseReport(case))
    return reports


def runnable(cases: Sequence[Case], capabilities: frozenset[Capability]) -> tuple[Case, ...]:
    """The cases that a store with these capabilities must pass."""
    return tuple(case for case in cases if case.needs <= capabilities)
