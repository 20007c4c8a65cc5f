"""Figures: samples, the pairs they are measured in, and the one JSON line that tells of each."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Plan:
    """How much is measured: repetitions, processes per repetition, where the files lie, and what runs the peers, by
    their name: an interpreter that has it, or a whole command."""

    reps: int
    n: int
    folder: Path | None = None
    peers: Mapping[str, Path] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)

    def part(self, divisor: int, least: int) -> int:
        """A share of `n` for what is slow one by one."""
        return max(least, self.n // divisor)


@dataclass(frozen=True)
class Target:
    """A bound, and on which side of it a figure has to be."""

    side: Literal["at least", "at most"]
    bound: float

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.side == "at least" else value <= self.bound


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def percentile(samples: Sequence[float], percent: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def emit(name: str, samples: Sequence[float], unit: str, *, n: int, **more: Any) -> None:
    """Print one figure. `more` stands after the common keys; what is None is left out."""
    line = {
        "name": name, "median": _short(median(samples)), "min": _short(min(samples)), "max": _short(max(samples)),
        "unit": unit, "samples": [_short(sample) for sample in samples], "n": n,
        **{key: value for key, value in more.items() if value is not None},
    }  # fmt: skip
    print_figure(line)


def print_figure(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def emit_pair(
    name: str,
    ours: Sequence[float],
    raw: Sequence[float],
    unit: str,
    *,
    n: int,
    raw_name: str,
    batch: float | None = None,
    target: Target | None = None,
    **more: Any,
) -> None:
    """Print a raw limit and our figure beside it, with the median of the pairs' ratios ours / raw."""
    emit(raw_name, raw, unit, n=n, batch=batch)
    emit(name, ours, unit, n=n, batch=batch, **ratio(ours, raw, target), **more)


def ratio(ours: Sequence[float], raw: Sequence[float], target: Target | None = None) -> dict[str, Any]:
    """The keys that tell how ours compares with raw, pair by pair."""
    ratios = [mine / theirs for mine, theirs in zip(ours, raw, strict=True)]
    told: dict[str, Any] = {"ratio": _short(median(ratios)), "ratios": [_short(one) for one in ratios]}
    if target is not None:
        told |= {"target": f"ratio {target.side} {target.bound}", "holds": target.holds(median(ratios))}
    return told


def _short(value: float) -> float:
    return float(f"{value:.5g}")


@contextmanager
def scratch(plan: Plan) -> Iterator[Path]:
    """A folder for one repetition, on the disk that is measured."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=plan.folder) as folder:
        gc.collect()  # what the last repetition left behind is not this one's to clear away
        yield Path(folder)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def child(*arguments: str) -> dict[str, float]:
    """Run `python -m bench.<arguments>` in a process of its own; the JSON object that it prints."""
    program, *rest = arguments
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{program}", *rest], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"bench.{program} failed:\n{done.stderr}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def describe() -> str:
    """What was measured on, in one line."""
    import apsw

    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return (
        f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()} (apsw), {os.cpu_count()} CPUs, "
        f"load {load}"
    )
