"""The numbered steps of the schema, forward only."""

from __future__ import annotations

from importlib.resources import files


def migrations() -> list[tuple[int, str]]:
    """(number, SQL) of every step, in order; numbers are 1, 2, 3 …"""
    steps = sorted(
        (int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in files(__package__).iterdir()
        if entry.name.endswith(".sql")
    )
    assert [number for number, _ in steps] == list(range(1, len(steps) + 1))
    return steps
