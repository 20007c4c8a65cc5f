"""The PostgreSQL lab, reduced: a server, three workers and their connections, struck for a quarter of a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lab.postgres.run import PostgresLab, PostgresReport
from lab.postgres.screen import tell_breaches

SEED = 8
"""With it every kind of fault strikes once in that time, on a machine that is not too slow."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> PostgresReport:
    folder: Path = tmp_path_factory.mktemp("lab")
    lab = PostgresLab(folder, seed=SEED)
    made = asyncio.run(lab.run(15.0))
    assert not made.breaches, tell_breaches(lab)
    return made


def test_faults_of_the_server_its_ways_and_its_workers_break_no_promise(report: PostgresReport) -> None:
    assert report.breaches == ()
    assert len(report.faults) >= 4, report.faults


def test_all_that_was_started_has_come_to_its_end(report: PostgresReport) -> None:
    ends = {status.rpartition(" ")[2] for status in report.statuses}
    assert ends <= {"completed", "abandoned"}
    assert sum(report.statuses.values()) >= report.started > 0
    assert report.signals > 0
    assert report.ends_seen > 0
