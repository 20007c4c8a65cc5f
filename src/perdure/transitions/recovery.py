"""What may become of a row whose owner is gone: the recovery contract, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.clock import Moment
from perdure.model.events import Takeover
from perdure.model.leases import DeathProof, Lease
from perdure.model.outcomes import Abandoned, ErrorDetail, Evidence, Failed
from perdure.model.record import ProcessRecord
from perdure.transitions.leases import has_expired


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Rerunnable: the next claimer enters the code again; `takeover` goes into its start."""

    takeover: Takeover


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further start is allowed: the row ends as abandoned."""

    outcome: Abandoned


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """Nobody may enter the code; only an abandon request ends it."""

    because: Literal["owner_bound", "externally_owned"]


def recover(
    record: ProcessRecord, lapsed: Lease, proof: DeathProof | None, now: Moment
) -> RunAgain | GiveUp | LeaveAlone:
    """Decide about a running row whose lease has lapsed, was released, or whose owner is proved dead."""
    match record.registration.recovery:
        case "rerunnable":
            pass
        case "owner_bound" | "externally_owned" as because:
            return LeaveAlone(because)
    if lapsed.released:
        return RunAgain(Takeover(lapsed.owner, lapsed.fence, "released"))
    expired = has_expired(lapsed, now)
    deaths = record.state.deaths + 1
    if deaths > record.registration.deaths_limit:
        how = "its lease lapsed" if expired or proof is None else proof.detail
        return GiveUp(
            Abandoned(
                Evidence(
                    "deaths_exhausted",
                    lapsed.owner.name,
                    now.wall_ms,
                    f"death {deaths} of at most {record.registration.deaths_limit}: {how}",
                )
            )
        )
    if proof is not None and not expired:
        return RunAgain(Takeover(lapsed.owner, lapsed.fence, "proved_dead", proof))
    return RunAgain(Takeover(lapsed.owner, lapsed.fence, "lapsed"))


def deadline_passed(record: ProcessRecord, now: Moment) -> bool:
    deadline_at_ms = record.deadline_at_ms
    return deadline_at_ms is not None and deadline_at_ms <= now.wall_ms


def is_entered(record: ProcessRecord) -> bool:
    """Whether the code of this process was entered, as far as anybody can know."""
    return record.state.started is not None


def may_end_unowned(record: ProcessRecord) -> bool:
    """Whether a row that nobody runs may be ended without an abandon request: its outcome can be known."""
    match record.registration.recovery:
        case "rerunnable":
            return True
        case "owner_bound":
            return not is_entered(record)
        case "externally_owned":
            return False


def deadline_failure(record: ProcessRecord) -> Failed:
    """The outcome of a process whose declared deadline has passed."""
    return Failed(
        ErrorDetail(
            "DeadlineExceeded",
            f"the declared deadline of {record.registration.deadline_ms} ms after the start has passed",
            code="deadline",
            retryable=False,
            attempt=record.state.attempt,
        )
    )
