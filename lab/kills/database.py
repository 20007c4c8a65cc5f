"""What the file itself says, read past the registry."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

STALLED_MS = 2_000
"""Work that could have been taken for so long, while a worker lived with nothing to do, was forgotten."""


def damage(database: Path) -> list[str]:
    """What PRAGMA integrity_check complains of."""
    with _opened(database) as connection:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if said == ["ok"] else [f"integrity_check: {line}" for line in said]


def left_behind(database: Path) -> dict[str, int]:
    """What dead programs have left: files beside the database, by suffix, and rows of owners."""
    with _opened(database) as connection:
        owners: int = connection.execute("SELECT count(*) FROM owners").get
    files = Counter(file.suffix for file in database.with_name(database.name + ".owners").iterdir())
    return {**files, "owners": owners}


def stalled(database: Path, gone: Collection[str]) -> list[str]:
    """Rows that any worker could have taken long ago: ready, or leased to a program that is gone."""
    before_ms = time.time_ns() // 1_000_000 - STALLED_MS
    with _opened(database) as connection:
        ready = connection.execute("SELECT id, ready_at FROM processes WHERE ready_at <= ?", (before_ms,)).fetchall()
        held = connection.execute(
            "SELECT p.id, l.claimed_at, l.incarnation FROM leases AS l JOIN processes AS p ON p.row = l.row "
            "WHERE l.lane IS NOT NULL AND l.claimed_at <= ? AND l.incarnation IN (SELECT value FROM json_each(?))",
            (before_ms, msgspec.json.encode(sorted(gone)).decode()),
        ).fetchall()
    return [f"{id} has been ready since {since} ms and nobody has taken it" for id, since in ready] + [
        f"{id} was claimed at {since} ms by {owner}, which is gone, and nobody has taken it over"
        for id, since, owner in held
    ]


@contextmanager
def _opened(database: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(5_000)
        yield connection
    finally:
        connection.close()
