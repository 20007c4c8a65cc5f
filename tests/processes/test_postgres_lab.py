"""The PostgreSQL lab, reduced: a server, three workers and their connections, struck for a quarter of a minute."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

import pytest

from lab.postgres.plans import KINDS, Planner
from lab.postgres.run import WORKERS, PostgresLab, PostgresReport
from lab.postgres.screen import tell_breaches

SECONDS = 15.0
SEED = 8
"""By its plan every kind of fault begins once in that time. A slow machine comes less far: half of them must strike."""


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> tuple[PostgresLab, PostgresReport]:
    folder: Path = tmp_path_factory.mktemp("lab")
    lab = PostgresLab(folder, seed=SEED)
    return lab, asyncio.run(lab.run(SECONDS))


def test_by_the_plan_every_kind_of_fault_begins_in_that_time() -> None:
    planned = list(islice(Planner(SEED, WORKERS).faults(), len(KINDS)))
    assert {fault.kind for fault in planned} == set(KINDS)
    assert sum(fault.lasts_ms for fault in planned[:-1]) < SECONDS * 1_000


def test_faults_of_the_server_its_ways_and_its_workers_break_no_promise(
    struck: tuple[PostgresLab, PostgresReport],
) -> None:
    lab, report = struck
    assert report.breaches == (), tell_breaches(lab)
    assert len(report.faults) >= 4, report.faults


def test_all_that_was_started_has_come_to_its_end(struck: tuple[PostgresLab, PostgresReport]) -> None:
    _, report = struck
    ends = {status.rpartition(" ")[2] for status in report.statuses}
    assert ends <= {"completed", "abandoned"}
    assert sum(report.statuses.values()) >= report.started > 0
    assert report.signals > 0
    assert report.ends_seen > 0
