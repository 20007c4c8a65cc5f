"""Strands: the sequences of code of one process. It has one of its own, and one for each branch that runs beside it."""

from __future__ import annotations

from contextvars import ContextVar


class Strand:
    """One sequence of operations, and how far it has come.

    `begun`: its code was entered. `passed`: the operations it has ended. `live`: it is past what the journal knows.
    `step`: the step whose own code runs. `cancelled`: the process's cancellation has reached it; it is told once, and
    branches that it makes afterwards are not told again. `interrupted_after`: that was between two operations, after
    so many of them, and is not in the journal yet.
    """

    __slots__ = ("begun", "cancelled", "interrupted_after", "live", "name", "operation", "parent", "passed", "step")

    def __init__(self, name: str = "", parent: Strand | None = None) -> None:
        self.name, self.parent = name, parent
        self.cancelled: bool = parent is not None and parent.cancelled
        self.begun = parent is None
        self.live = False
        self.passed = 0
        self.operation: str | None = None
        self.step: str | None = None
        self.interrupted_after: int | None = None

    def branch(self, index: int) -> Strand:
        """A new strand that runs beside its siblings while this one waits for them."""
        return Strand(f"{self.name}{self.passed}.{index}/", self)

    def go_live(self) -> None:
        """It does something new, and so whoever waits for it waits for something new."""
        strand: Strand | None = self
        while strand is not None and not strand.live:
            strand.live, strand = True, strand.parent

    def place(self, passed: int) -> str:
        """The key of what happens between two operations of this strand."""
        return f"{self.name}@{passed}"


_current: ContextVar[Strand | None] = ContextVar("perdure_strand", default=None)


def current_strand(main: Strand) -> Strand:
    """The branch that this code belongs to, or else the process's own strand."""
    return _current.get() or main


def enter_branch(strand: Strand | None) -> None:
    """From here on this task, and the threads it starts, are code of this branch; None: of no branch at all."""
    if strand is not None:
        strand.begun = True
    _current.set(strand)
