"""A host on a real file, and the rule that no thread outlives its portal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Host, WorkerOptions

LONGEST_WAIT_S = 20.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'work.db'}"


@pytest.fixture
def host(url: str) -> Host:
    return Host(url, options=WorkerOptions(cancel_grace_ms=1_000, drain_grace_ms=200))


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LONGEST_WAIT_S)  # idle threads of a closed pool end by themselves, a moment later
        assert not thread.is_alive(), thread.name
