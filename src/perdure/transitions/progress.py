"""Whether a run may still say how far it has come."""

from __future__ import annotations

from perdure.clock import Moment
from perdure.model.leases import Lease
from perdure.transitions.commands import ReportedProgress
from perdure.transitions.leases import check_key


def accepts_progress(standing: Lease | None, reported: ReportedProgress, now: Moment) -> bool:
    """Only who holds the standing lease: a stale owner's fence is older, and what it says is dropped.

    Fences never go down, so the value that stands can't be newer than one that is accepted.
    """
    return check_key(standing, reported.key, now) is None
