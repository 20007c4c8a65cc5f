"""The figures of the SQLite store, by section."""

from __future__ import annotations

from collections.abc import Callable

from bench import claims, drain, imports, latency, memory, starts, steps, suspended
from bench.measure import Plan

SECTIONS: dict[str, Callable[[Plan], None]] = {
    "starts": starts.measure,
    "drain": drain.measure,
    "steps": steps.measure,
    "suspended": suspended.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "claim": claims.measure,
    "import": imports.measure,
}
