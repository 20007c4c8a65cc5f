"""The kill lab, reduced: real workers in real processes on one file, killed at every named moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure.contract.moments import MOMENTS

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What the lab says of 25 rounds; its exit code says whether every promise was kept."""
    run = subprocess.run(
        [sys.executable, "-m", "lab", "kills", "--rounds", "25", "--least-hits", "1"],
        cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    said: dict[str, Any] = json.loads(run.stdout[run.stdout.index("\n{") :])
    return said


def test_killing_workers_at_any_moment_breaks_no_promise(report: dict[str, Any]) -> None:
    assert report["breaches"] == []
    assert report["rounds"] == 25


def test_every_named_moment_was_one_at_which_a_worker_died(report: dict[str, Any]) -> None:
    assert {moment for moment, hits in report["kills"].items() if hits >= 1} == {*MOMENTS, "outside"}


def test_the_work_of_killed_workers_was_taken_over_and_ended(report: dict[str, Any]) -> None:
    assert report["entered_again"] >= 10
    assert report["takeovers"]["proved_dead"] >= 10
    assert sum(report["statuses"].values()) == report["started"]
    assert set(report["statuses"]) == {"completed", "abandoned"}
