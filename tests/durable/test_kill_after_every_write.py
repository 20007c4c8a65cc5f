"""A real function in real programs, a new interpreter each, killed with SIGKILL right after what it has written."""

from __future__ import annotations

from pathlib import Path

from lab.durable.run import run_after_every_write, run_at_each_commit_fresh, run_at_growing_commits
from lab.durable.work import Size

SIZE = Size(row=3, together=3, branch=3)
SMALL = Size(row=1, together=2, branch=1)


def test_a_function_killed_after_every_journal_write_ends_as_if_it_had_never_been(tmp_path: Path) -> None:
    report = run_after_every_write(tmp_path, SIZE)
    assert report.breaches == ()
    assert report.steps == 15
    assert report.kills >= 15  # what is written in one commit has one kill


def test_a_function_killed_at_one_commit_later_each_time_ends_as_if_it_had_never_been(tmp_path: Path) -> None:
    report = run_at_growing_commits(tmp_path, SIZE)
    assert report.breaches == ()
    assert report.kills >= 8


def test_a_function_killed_once_at_some_commit_of_a_new_file_ends_as_if_it_had_never_been(tmp_path: Path) -> None:
    report = run_at_each_commit_fresh(tmp_path, SMALL, every=3)
    assert report.breaches == ()
    assert report.kills >= 5
