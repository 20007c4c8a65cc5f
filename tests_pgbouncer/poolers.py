"""Poolers for as long as a test needs them."""

from __future__ import annotations

from collections.abc import Iterator

from lab.pgbouncer import Pooler


def started(made: Pooler) -> Iterator[Pooler]:
    """For a fixture, or the one turn of a loop."""
    try:
        made.start()
        yield made
    finally:
        made.remove()
