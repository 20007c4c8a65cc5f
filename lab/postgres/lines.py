"""What the programs of the PostgreSQL lab write down, in one file, in the order in which it was written."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lab.ledger import Ledger
from perdure.clock import SystemClock


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`boot_ms`: CLOCK_BOOTTIME, which all programs of one machine share."""

    boot_ms: int


class UnderLease(Line, frozen=True, kw_only=True):
    """Written by the code of a process: by which program, under which fence, and until when that was covered."""

    process_id: str
    fence: int
    incarnation: str
    pid: int
    deadline_ms: int


class RunBegan(UnderLease, frozen=True, kw_only=True, tag="run_began"):
    kind: str


class RunEnded(UnderLease, frozen=True, kw_only=True, tag="run_ended"):
    """`how`: returned, or the name of what was raised."""

    how: str


class StepBegan(UnderLease, frozen=True, kw_only=True, tag="step_began"):
    """The outside side effect of a step."""

    step: str


class StepDone(UnderLease, frozen=True, kw_only=True, tag="step_done"):
    step: str


class WorkerUp(Line, frozen=True, kw_only=True, tag="worker_up"):
    slot: int
    incarnation: str
    pid: int


class FaultReported(Line, frozen=True, kw_only=True, tag="fault_reported"):
    """What a worker said of its own troubles."""

    incarnation: str
    kind: str
    process_id: str | None
    message: str
    detail: str


class StartAsked(Line, frozen=True, kw_only=True, tag="start_asked"):
    process_id: str
    kind: str
    n: int
    takes_ms: int


class StartAcknowledged(Line, frozen=True, kw_only=True, tag="start_acknowledged"):
    process_id: str


class SignalAsked(Line, frozen=True, kw_only=True, tag="signal_asked"):
    process_id: str
    signal_id: str
    value: int


class SignalAcknowledged(Line, frozen=True, kw_only=True, tag="signal_acknowledged"):
    process_id: str
    signal_id: str
    sequence: int


class OutcomeSeen(Line, frozen=True, kw_only=True, tag="outcome_seen"):
    """What a waiter was told, as JSON."""

    process_id: str
    outcome: str


class Struck(Line, frozen=True, kw_only=True, tag="struck"):
    """A fault is over; it began at `began_ms`. `slot`: whom it struck, None for the server and so for all.
    `pid`: the program that was killed or paused."""

    began_ms: int
    kind: str
    slot: int | None
    pid: int | None


AnyLine = (
    RunBegan | RunEnded | StepBegan | StepDone | WorkerUp | FaultReported | StartAsked | StartAcknowledged
    | SignalAsked | SignalAcknowledged | OutcomeSeen | Struck
)  # fmt: skip

_clock = SystemClock()


def boot_ms() -> int:
    return _clock.now().boot_ms


def open_ledger(path: Path) -> Ledger[AnyLine]:
    return Ledger(path, AnyLine)  # type: ignore[arg-type]  # a union
