"""The immutable request that made a process: the base of the fold."""

from __future__ import annotations

from typing import Literal

import msgspec

Recovery = Literal["rerunnable", "owner_bound", "externally_owned"]
"""What may happen to a process whose owner is gone. Declared by the producer; there is no default.

`rerunnable`: another worker runs it again. `owner_bound`: once its code was entered, nobody ever enters it again; an
operator ends it with an abandon request. `externally_owned`: never run by Perdure; its owner completes it.
"""

RECOVERIES: tuple[Recovery, ...] = ("rerunnable", "owner_bound", "externally_owned")

ParentEnd = Literal["cancel", "abandon", "wait"]
"""What becomes of a live child when its parent ends: it is asked to stop, it goes on, or the parent waits for it."""

PARENT_ENDS: tuple[ParentEnd, ...] = ("cancel", "abandon", "wait")

DEFAULT_MAX_DEATHS = 5
DEFAULT_PRIORITY = 5
HIGHEST_PRIORITY, LOWEST_PRIORITY = 0, 9

NULL = msgspec.Raw(b"null")


class Definition(msgspec.Struct, frozen=True, gc=False, order=True):
    """The code of a process, by name: which engine runs it, what it is called, and which version of it."""

    engine: str
    name: str
    version: int = 1

    def __str__(self) -> str:
        return f"{self.engine}/{self.name}@{self.version}"


class RetryPolicy(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How often and when a process whose code raised is started again.

    The n-th failure (n < max_attempts) schedules a retry after `initial_ms * factor ** (n - 1)`, at most `max_ms`,
    shortened or lengthened by up to `jitter` of itself. An error whose type name is in `non_retryable` fails at once.
    """

    max_attempts: int = 3
    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 3_600_000
    jitter: float = 0.1
    non_retryable: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a person would call this process: its kind and a label. Shown, never interpreted."""

    kind: str = ""
    label: str = ""


class Registration(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="v", tag=1):
    """Everything that was declared when the process was started. Durations count from the registration's time."""

    id: str
    definition: Definition
    recovery: Recovery
    input: msgspec.Raw = NULL
    retry: RetryPolicy | None = None
    max_deaths: int | None = None
    deadline_ms: int | None = None
    delay_ms: int = 0
    queue: str = "default"
    priority: int = DEFAULT_PRIORITY
    identity: Identity | None = None
    event_types: dict[str, msgspec.Raw] = {}
    signals: dict[str, msgspec.Raw] = {}
    originator: str | None = None
    caused_by: str | None = None
    parent: str | None = None
    parent_end: ParentEnd = "cancel"
    wake_target: str | None = None

    @property
    def deaths_limit(self) -> int:
        """How many deaths are survived; one more and the process is abandoned."""
        return DEFAULT_MAX_DEATHS if self.max_deaths is None else self.max_deaths
