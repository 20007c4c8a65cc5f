"""Disks of a lab: layers over SQLite's own that log every write, or fail when told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import apsw
import msgspec

SECTOR = 512
"""What a disk writes whole or not at all."""


class Written(msgspec.Struct, frozen=True):
    """Bytes handed to the operating system; on the disk for certain only after the file's next Synced."""

    file: str
    offset: int
    data: bytes


class Truncated(msgspec.Struct, frozen=True):
    file: str
    size: int


class Synced(msgspec.Struct, frozen=True):
    file: str


class Deleted(msgspec.Struct, frozen=True):
    file: str


class Acknowledged(msgspec.Struct, frozen=True):
    """What a caller was told stands from here on."""

    what: str


Operation = Written | Truncated | Synced | Deleted | Acknowledged


class RecordingDisk(apsw.VFS):
    """Does everything as usual, and logs it in order. Register by making; `unregister` when done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[Operation] = []
        self._lock = threading.Lock()
        super().__init__(name, "")

    def note(self, operation: Operation) -> None:
        with self._lock:
            self.log.append(operation)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _RecordedFile(name, flags, self.note)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.note(Deleted(os.path.basename(filename)))


class _RecordedFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], note: Callable[[Operation], None]) -> None:
        super().__init__("", name, flags)
        self._name, self._note = _base_name(name), note

    def xWrite(self, data: bytes, offset: int) -> None:
        self._note(Written(self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._note(Truncated(self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._note(Synced(self._name))


class FailingDisk(apsw.VFS):
    """Does everything as usual until told to fail: then `fails(file, call)` may answer with the error to raise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fails: Callable[[str, str], apsw.Error | None] = lambda file, call: None
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FailingFile(name, flags, self)


class _FailingFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], disk: FailingDisk) -> None:
        super().__init__("", name, flags)
        self._name, self._disk = _base_name(name), disk

    def _may_fail(self, call: str) -> None:
        error = self._disk.fails(self._name, call)
        if error is not None:
            raise error

    def xWrite(self, data: bytes, offset: int) -> None:
        self._may_fail("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._may_fail("sync")
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._may_fail("read")
        return super().xRead(amount, offset)


def full() -> apsw.Error:
    """No space left on the disk."""
    return apsw.FullError("database or disk is full")


def io_error(extended: int) -> apsw.Error:
    """A read or write that failed; `extended` is one of apsw.SQLITE_IOERR_*."""
    error = apsw.IOError("disk I/O error")
    error.extendedresult = extended  # type: ignore[attr-defined]  # apsw reads it from what a VFS raises
    return error


def _base_name(name: Any) -> str:
    path = name.filename() if isinstance(name, apsw.URIFilename) else name
    return os.path.basename(path or "temporary")
