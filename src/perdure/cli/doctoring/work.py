"""What lives on the database: owners, their leases, what nobody runs, what was posted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.cli.checks import SHOWN, Check
from perdure.cli.text import counted
from perdure.clock import Moment
from perdure.model.record import STATUSES
from perdure.stores.owners import OwnerReport
from perdure.stores.postgres.findings import PostedReport, StatusCount
from perdure.stores.postgres.inspection import Held
from perdure.transitions.explain import explain


def check_owners(owners: Sequence[OwnerReport]) -> Iterator[Check]:
    idle = [owner for owner in owners if not owner.leases and owner.state != "alive"]
    if idle:
        said = counted(len(idle), "owner that is dead or elsewhere holds", "owners that are dead or elsewhere hold")
        yield Check("owners", "ok", f"{said} nothing")
    if not owners:
        yield Check("owners", "ok", "no worker is enrolled")
    for owner in owners:
        if owner in idle:
            continue
        said = f"{owner.name} ({owner.incarnation[:8]}) is {owner.state}, {counted(owner.leases, 'lease')}"
        fix = "" if owner.state != "dead" else "The next worker takes its runs over at once: perdure worker MODULE:HOST"
        yield Check("owner", "warn" if fix else "ok", f"{said}: {owner.detail}", fix)


def check_runs(found: Sequence[Held], now: Moment) -> Iterator[Check]:
    """`found` are runs without a live lease of a living owner, and rows whose caller has departed."""
    lapsed: list[str] = []
    attention = []
    for record, lease in found:
        explanation = explain(record, lease, now)
        if explanation.needs_attention:
            attention.append((record.id, explanation))
        elif not record.is_terminal:
            lapsed.append(record.id)
    if lapsed:
        listed = ", ".join(lapsed[:SHOWN]) + (" …" if len(lapsed) > SHOWN else "")
        yield Check(
            "leases", "warn", f"{counted(len(lapsed), 'run waits', 'runs wait')} for a worker: {listed}",
            "The next worker runs them again: perdure worker MODULE:HOST",
        )  # fmt: skip
    else:
        yield Check("leases", "ok", "every run has a live lease")
    for id, explanation in attention[:SHOWN]:
        said = f"{id} {explanation.verdict}: {'; '.join(explanation.because)}"
        yield Check("attention", "fail", said, " or: ".join(explanation.you_can))
    if len(attention) > SHOWN:
        yield Check("attention", "fail", f"{len(attention) - SHOWN} more rows need attention")
    if not attention:
        yield Check("attention", "ok", "no row needs a decision")


def check_posted(found: PostedReport) -> Check:
    if not found.count:
        return Check("posted", "ok", "nothing that was posted waits for its delivery")
    listed = ", ".join(found.first or ())
    return Check(
        "posted", "warn", f"{counted(found.count, 'signal waits', 'signals wait')} for delivery, first to {listed}",
        "A host that works delivers within a second what it can read: look for its faults of kind undelivered.",
    )  # fmt: skip


def check_statuses(found: Sequence[StatusCount]) -> Check:
    unknown = [row.status for row in found if row.status not in STATUSES]
    if unknown:
        said = f"rows with a status that this version doesn't know: {', '.join(unknown)}"
        return Check("status", "fail", said, "Upgrade Perdure.")
    return Check("status", "ok", ", ".join(f"{row.count:,} {row.status}" for row in found) or "no processes yet")
