"""Loads the named statements of the .sql files in this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from perdure.stores.sql_files import read_statements

T = TypeVar("T")

LARGEST_CHUNK = 256
_ROW_OF_VALUES = re.compile(r"\(\?(?:, \?)*\)")


def load_queries(file_name: str) -> dict[str, str]:
    """The statements of one file, by the name in the `-- name:` line above each."""
    return read_statements(__package__, file_name)


class BulkStatement:
    """A statement that writes rows, in the sizes 1, 2, 4 … 256, so that few texts serve every batch."""

    def __init__(self, sql: str) -> None:
        match = _ROW_OF_VALUES.search(sql)
        assert match is not None, "a bulk statement has one row of (?, …)"
        self._sql, self._values = sql, match.group()
        self._texts: dict[int, str] = {}

    def text(self, rows: int) -> str:
        found = self._texts.get(rows)
        if found is None:
            found = self._texts[rows] = self._sql.replace(self._values, ", ".join([self._values] * rows))
        return found


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in order, in runs of 256, 128 … 1."""
    at, size = 0, LARGEST_CHUNK
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        yield rows[at : at + size]
        at += size
