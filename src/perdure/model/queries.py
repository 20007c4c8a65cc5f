"""What can be asked of a registry without changing it."""

from __future__ import annotations

import msgspec

from perdure.errors import InvalidOption
from perdure.model.events import Event
from perdure.model.record import ProcessRecord, Status

LARGEST_PAGE = 1_000
LARGEST_EVENT_PAGE = 10_000


class Filter(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Which records: every field that is set must match. An empty filter matches all."""

    statuses: tuple[Status, ...] = ()
    definition: str | None = None
    queue: str | None = None
    parent: str | None = None
    id_prefix: str | None = None


class Page(msgspec.Struct, frozen=True, gc=False):
    """Which part of the answer: at most `limit` records (1 to 1,000) whose id sorts after `after_id`."""

    limit: int = 100
    after_id: str | None = None


def check_limit(limit: int, largest: int = LARGEST_PAGE) -> None:
    """Raises InvalidOption unless it is 1 to `largest`: the same on every store."""
    if not 1 <= limit <= largest:
        raise InvalidOption("limit", limit, f"1 to {largest:,}")


class EventPage(msgspec.Struct, frozen=True, gc=False):
    """Events in sequence order; `more` says that later ones existed when it was read."""

    events: tuple[Event, ...]
    more: bool


class Explanation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why a process is not running, or who runs it.

    `verdict` is one word for programs: ready, running, delayed, waiting, recovering,
    needs_abandon, external, admitted, departed, ended, unknown_definition. `because` are facts in sentences,
    `you_can` are the commands that would change it.
    """

    process_id: str
    verdict: str
    because: tuple[str, ...] = ()
    you_can: tuple[str, ...] = ()
    needs_attention: bool = False


class RecordPage(msgspec.Struct, frozen=True, gc=False):
    records: tuple[ProcessRecord, ...]
    more: bool
