"""Ledgers outside the database: files to which every program appends lines, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

LineT = TypeVar("LineT")


class Ledger(Generic[LineT]):
    """Lines of one type, in the order in which they were written by whomever.

    A line is one write(2) to a descriptor opened with O_APPEND: a program killed right after it has written it.
    """

    def __init__(self, path: Path, line: type[LineT]) -> None:
        self.path, self._line = path, line
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, line: LineT) -> None:
        os.write(self._fd, msgspec.json.encode(line) + b"\n")

    def read(self) -> list[LineT]:
        return [msgspec.json.decode(line, type=self._line) for line in self.path.read_bytes().splitlines()]
