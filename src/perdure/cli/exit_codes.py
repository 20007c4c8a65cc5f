"""What a command's exit code says. The one table: the code, the help text and the tests read it from here."""

from __future__ import annotations

from enum import IntEnum

from perdure.errors import (
    CallerDeparted,
    DecodeError,
    InvalidRequest,
    NoLongerRetained,
    OutcomeUnknown,
    ProcessAbandoned,
    ProcessCancelled,
    ProcessFailed,
    Refused,
    StoreError,
    UnknownProcess,
)
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Failed, ProcessAwaitOutput, RetainedNoLonger


class ExitCode(IntEnum):
    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    UNKNOWN_PROCESS = 4
    REFUSED = 5
    STORE = 6
    FAILED = 10
    CANCELLED = 11
    ABANDONED = 12
    CALLER_DEPARTED = 13
    TIMEOUT = 124
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: tuple[tuple[str, str], ...] = (
    ("0", "done; for `wait` and `start --wait`: all completed"),
    ("1", "unexpected error, or a check failed (check, doctor, demo)"),
    ("2", "usage or bad input: option, JSON, MODULE:HOST, ambiguous id"),
    ("4", "no such process, or its record is no longer retained"),
    ("5", "refused by what stands (ended, conflict); explain: needs attention"),
    ("6", "store unusable: missing, unreachable, full, foreign, newer, damaged"),
    ("10", "a process failed"),
    ("11", "a process was cancelled"),
    ("12", "a process was abandoned"),
    ("13", "a process's caller departed (of several processes the highest counts)"),
    ("124", "--timeout elapsed; the processes go on"),
    ("130", "interrupted (Ctrl-C)"),
    ("143", "terminated (SIGTERM); a worker that drained in peace exits 0"),
)


def of_error(error: BaseException) -> ExitCode:
    """The exit code that an error ends a command with."""
    match error:
        case UnknownProcess() | NoLongerRetained():
            return ExitCode.UNKNOWN_PROCESS
        case CallerDeparted():
            return ExitCode.CALLER_DEPARTED
        case ProcessFailed():
            return ExitCode.FAILED
        case ProcessCancelled():
            return ExitCode.CANCELLED
        case ProcessAbandoned():
            return ExitCode.ABANDONED
        case InvalidRequest():
            return ExitCode.USAGE
        case Refused():
            return ExitCode.REFUSED
        case OutcomeUnknown() | StoreError() | DecodeError():
            return ExitCode.STORE
        case _:
            return ExitCode.UNEXPECTED


def of_outcome(outcome: ProcessAwaitOutput) -> ExitCode:
    """The exit code that says how a process ended."""
    match outcome:
        case Completed():
            return ExitCode.OK
        case Failed():
            return ExitCode.FAILED
        case Cancelled():
            return ExitCode.CANCELLED
        case Abandoned():
            return ExitCode.ABANDONED
        case RetainedNoLonger():
            return ExitCode.UNKNOWN_PROCESS
