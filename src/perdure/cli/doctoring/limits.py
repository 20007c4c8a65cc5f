"""From where on a finding is a trouble."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Ages in milliseconds, `horizon` in transactions begun since, `share` in hundredths."""

    transaction_ms: int = 60_000
    """An open transaction older than this holds up vacuum, and perhaps others."""
    horizon: int = 1_000_000
    lock_ms: int = 10_000
    """As long as a command waits for a row that somebody else holds."""
    clock_ms: int = 1_000
    connections_share: int = 80
    kept_wal_bytes: int = 1_000_000_000
    dead_rows: int = 10_000
    """Fewer are no trouble, whatever their share."""
    slack_bytes: int = 100_000_000
    """Less room that no row needs is no trouble."""
    writes: int = 10_000
    """From so many writes of its table on, an index that was never read is said to be unused."""
    index_bytes: int = 10_000_000
    counted_rows: int = 1_000_000
    """Beyond so many processes they are not counted, as that would read the table through."""
