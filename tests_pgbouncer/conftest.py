"""A pooler of a test's own, in front of the server of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.pgbouncer import Pooler, Program
from tests.conftest import every_error_is_heard
from tests.postgres.server import direct_url
from tests_pgbouncer.poolers import started

__all__ = ["every_error_is_heard"]


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    found = Program()
    yield found
    found.remove()


@pytest.fixture
def narrow(program: Program) -> Iterator[Pooler]:
    """A pooler that has one connection to the server: all clients share its session."""
    yield from started(Pooler(direct_url(), program, {"default_pool_size": "1"}))


@pytest.fixture
def pooler(program: Program) -> Iterator[Pooler]:
    yield from started(Pooler(direct_url(), program, {"default_pool_size": "2"}))
