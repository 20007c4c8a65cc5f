"""Named moments: places in the code that a test can wait for, or crash at. In production nothing happens there."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

MomentName = Literal[
    "claim.committed", "run.entered", "run.returned", "end.committed", "commit.before", "commit.after",
    "renewal.answered",
]  # fmt: skip
"""claim.committed: rows are leased, nothing runs yet · run.entered: the next step is the user's code · run.returned:
the code has ended, its end isn't written · end.committed: the end is written · commit.before and commit.after: around
every commit of the store's writer · renewal.answered: the store has answered a renewal."""

MOMENTS: tuple[MomentName, ...] = get_args(MomentName)


class Moments(Protocol):
    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        """Called in whatever thread gets there."""
        ...


class NoMoments:
    """Nothing happens."""

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        return
