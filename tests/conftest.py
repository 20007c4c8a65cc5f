"""What holds for every test: no task of its ends with an error that nobody hears of."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


class Unheard(logging.Handler):
    """Keeps what asyncio says of tasks and futures whose errors were never asked for."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "never retrieved" in record.getMessage():
            self.said.append(self.format(record))


@pytest.fixture(autouse=True, scope="module")
def what_stands_is_not_looked_at_again() -> None:
    """A collection after each test then costs next to nothing, whatever the modules before this one have loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def every_error_is_heard() -> Iterator[None]:
    """Collects what the test has left: later it would be told in the middle of another one."""
    unheard = Unheard()
    logger = logging.getLogger("asyncio")
    logger.addHandler(unheard)
    yield
    gc.collect()
    logger.removeHandler(unheard)
    assert unheard.said == []
