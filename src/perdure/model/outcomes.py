"""How a process ends."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.model.registration import NULL


class ErrorDetail(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What went wrong, as data. `sanitised` says that text was altered so that it could be recorded at all."""

    type: str
    message: str = ""
    code: str | None = None
    traceback: str | None = None
    retryable: bool = True
    attempt: int = 0
    sanitised: bool = False


Writer = Literal["owner_drain", "reconciled_request", "deaths_exhausted", "engine"]


class Evidence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why it is certain that nobody will bring this process to another end: a written fact, never a guess."""

    writer: Writer
    owner: str | None = None
    at_ms: int = 0
    proof: str = ""


class Completed(msgspec.Struct, frozen=True, gc=False, tag="completed", omit_defaults=True):
    """The code returned; `value` is the canonical JSON of what it returned."""

    value: msgspec.Raw = NULL


class Failed(msgspec.Struct, frozen=True, gc=False, tag="failed"):
    """The code raised and no retry is left, or a declared deadline passed."""

    error: ErrorDetail


class Cancelled(msgspec.Struct, frozen=True, gc=False, tag="cancelled", omit_defaults=True):
    """Somebody asked for it to stop, and it did."""

    reason: str = ""
    by: str | None = None


class Abandoned(msgspec.Struct, frozen=True, gc=False, tag="abandoned"):
    """Its owner is gone or gave it up, and the recovery contract forbids to run it again."""

    evidence: Evidence


class RetainedNoLonger(msgspec.Struct, frozen=True, gc=False, tag="no_longer_retained"):
    """Only ever read, never written: the process ended and its record was pruned."""

    status: str
    pruned_at_ms: int


Outcome = Completed | Failed | Cancelled | Abandoned
"""The one terminal outcome of a process. It never changes."""

ProcessAwaitOutput = Completed | Failed | Cancelled | Abandoned | RetainedNoLonger
"""What waiting for the end of a process can answer."""
