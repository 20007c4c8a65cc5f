"""The benchmarks still run, and say what they say in the agreed shape. How fast anything is, no test asks."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

FIGURES = {
    "starts": {
        "starts.one_at_a_time", "raw.starts.one_at_a_time", "starts.100_at_once", "raw.starts.100_at_once",
        "starts.start_many", "raw.starts.start_many",
    },
    "drain": {
        "drain.concurrency_64", "raw.drain.concurrency_64", "drain.concurrency_256", "raw.drain.concurrency_256",
        "raw_sqlite.claim+complete at batch 100",
    },
    "steps": {"steps.concurrency_50", "raw.steps.concurrency_50"},
    "suspended": {
        "suspended.empty_file", "suspended.with_rows", "suspended.signal_to_result.p50",
        "suspended.signal_to_result.p95",
    },
    "latency": {
        "raw.one_commit.p50", "latency.start_to_result.p50", "latency.start_to_result.p95",
        "latency.start_to_result.p99",
    },
    "memory": {"memory.empty_file", "memory.nothing_runnable", "memory.while_draining"},
    "claim": {
        "claim.one_of_1000_rows", "claim.vm_steps_of_1000_rows", "claim.one_of_20000_rows",
        "claim.vm_steps_of_20000_rows",
    },
    "import": {"import.perdure", "import.perdure.without_typing_extensions", "raw.import.asyncio_sqlite3"},
}  # fmt: skip

POSTGRES_FIGURES = {
    "starts.start_many", "raw.starts.start_many", "drain.1_worker", "drain.2_workers", "raw.drain",
    "steps.concurrency_50", "raw.steps.concurrency_50", "latency.other_program.p50", "latency.other_program.p95",
    "latency.other_program.p99", "idle.queries_per_s", "claim.of_an_empty_table",
    "claim.beside_20000_waiting_and_20000_ended",
}  # fmt: skip


def figures_of(*arguments: str) -> dict[str, dict[str, Any]]:
    """What is printed, by name."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--n", "200", "--reps", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return {str(figure["name"]): figure for figure in figures}


def check(figure: dict[str, Any]) -> None:
    assert figure["min"] <= figure["median"] <= figure["max"]
    assert figure["min"] > 0
    assert len(figure["samples"]) >= 1
    assert figure["unit"]
    if "ratio" in figure or figure.get("target", "").startswith("ratio "):
        assert figure["ratio"] > 0
    if "target" in figure:
        assert figure["holds"] in (True, False)


@pytest.mark.parametrize("section", FIGURES)
def test_each_section_prints_its_figures_in_the_agreed_shape(section: str) -> None:
    figures = figures_of("sqlite", section)
    assert figures.keys() == FIGURES[section]
    for figure in figures.values():
        check(figure)


def test_on_postgresql_too_with_the_figures_of_a_peer_on_the_same_server() -> None:
    told = '{"name": "x", "median": 2, "unit": os.environ["PGHOST"]}'
    peer = f"import json, os; print('hello'); print(json.dumps({told}))"
    figures = figures_of("postgres", "--peer", f"other={sys.executable} -c {shlex.quote(peer)}")
    assert figures.pop("other.x") == {"name": "other.x", "median": 2, "unit": "127.0.0.1"}
    assert figures.keys() == POSTGRES_FIGURES
    for figure in figures.values():
        check(figure)
