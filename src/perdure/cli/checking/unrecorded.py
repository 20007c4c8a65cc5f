"""Functions of the standard library that give something else each time, and what the context gives instead."""

from __future__ import annotations

NOW = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
}  # fmt: skip
UUIDS = {"uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.uuid8"}
CHANCE = {"os.urandom", "os.getrandom"}
CHANCE_MODULES = ("random.", "secrets.")
SEEDED = {"random.Random"}
"""With a seed they give the same each time."""


def recorded_instead(name: str, *, has_arguments: bool) -> str | None:
    """The method of the context to use instead of this function; None if it may be used."""
    if name in NOW:
        return "now"
    if name in UUIDS:
        return "uuid"
    if name in SEEDED and has_arguments:
        return None
    return "random" if name in CHANCE or name.startswith(CHANCE_MODULES) else None
