"""What lives on a database, whichever store it is: owners, what nobody runs, what was posted, and what there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from perdure.cli.doctoring.check import Check
from perdure.cli.text import counted
from perdure.clock import Moment
from perdure.model.leases import Lease
from perdure.model.queries import Explanation
from perdure.model.record import STATUSES, ProcessRecord
from perdure.stores.owners import OwnerReport
from perdure.stores.postgres.findings import PostedReport
from perdure.transitions.explain import explain

SHOWN = 20


def check_owners(owners: Sequence[OwnerReport]) -> Iterator[Check]:
    """On PostgreSQL, where owners of other machines are usual and nothing is proved of them from here."""
    idle = [owner for owner in owners if not owner.leases and owner.state != "alive"]
    if idle:
        said = counted(len(idle), "owner that is dead or elsewhere holds", "owners that are dead or elsewhere hold")
        yield Check("owners", "ok", f"{said} nothing")
    if not owners:
        yield Check("owners", "ok", "no worker is enrolled")
    for owner in owners:
        if owner not in idle:
            yield check_owner(owner)


def check_owner(owner: OwnerReport, fix: str = "") -> Check:
    """`fix`: what to do about one that is not proved dead; empty if nothing has to be done."""
    said = f"{owner.name} ({owner.incarnation[:8]}) is {owner.state}, {counted(owner.leases, 'lease')}"
    if owner.state == "dead":
        fix = "The next worker takes its runs over at once: perdure worker MODULE:HOST"
    return Check("owner", "warn" if fix else "ok", f"{said}: {owner.detail}", fix)


def check_runs(found: Iterable[tuple[ProcessRecord, Lease | None]], now: Moment) -> Iterator[Check]:
    """`found` are rows that may need somebody, each with its lease: none if its owner is proved dead. What is so about
    each of them, the rules say."""
    again: list[str] = []
    abandoned: list[str] = []
    attention: list[Explanation] = []
    for record, lease in found:
        explanation = explain(record, lease, now)
        if explanation.needs_attention:
            attention.append(explanation)
        elif explanation.verdict == "recovering":
            (again if record.state.abandon_request is None else abandoned).append(record.id)
    if again:
        yield Check(
            "leases", "warn", f"{counted(len(again), 'run waits', 'runs wait')} for a worker: {listed(again)}",
            "The next worker runs them again: perdure worker MODULE:HOST",
        )  # fmt: skip
    if abandoned:
        said = counted(
            len(abandoned), "run that nobody works at is to be abandoned",
            "runs that nobody works at are to be abandoned",
        )  # fmt: skip
        yield Check(
            "leases", "warn", f"{said}: {listed(abandoned)}",
            "The next worker writes their end: perdure worker MODULE:HOST",
        )  # fmt: skip
    if not again and not abandoned:
        yield Check("leases", "ok", "no run waits for a worker")
    for told in attention[:SHOWN]:
        said = f"{told.process_id} {told.verdict}: {'; '.join(told.because)}"
        yield Check("attention", "fail", said, " or: ".join(told.you_can))
    if len(attention) > SHOWN:
        yield Check("attention", "fail", f"{len(attention) - SHOWN} more rows need attention")
    if not attention:
        yield Check("attention", "ok", "no row needs a decision")


def check_posted(found: PostedReport) -> Check:
    if not found.count:
        return Check("posted", "ok", "nothing that was posted waits for its delivery")
    first = ", ".join(found.first or ())
    return Check(
        "posted", "warn", f"{counted(found.count, 'signal waits', 'signals wait')} for delivery, first to {first}",
        "A host that works delivers within a second what it can read: look for its faults of kind undelivered.",
    )  # fmt: skip


def check_statuses(counts: Mapping[str, int], unknown: Sequence[tuple[str, str]] = ()) -> Check:
    """How many processes have each status. `unknown`: the (id, status) of rows with one that this version doesn't know,
    where they were looked up."""
    strange = [f"{id} ({status})" for id, status in unknown] or [name for name in counts if name not in STATUSES]
    if strange:
        said = f"rows with a status that this version doesn't know: {listed(strange)}"
        return Check("status", "fail", said, "Upgrade Perdure.")
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return Check("status", "ok", told or "no processes yet")


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
