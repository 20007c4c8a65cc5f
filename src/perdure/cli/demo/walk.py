"""What is to be done: the folders below a path and what stands in each, by os.scandir."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from perdure.cli.demo.names import process_id

Kind = Literal["file", "link", "other", "unreadable"]


@dataclass(frozen=True)
class Entry:
    name: bytes
    kind: Kind
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What stands directly in a folder, in order of names; its sub-folders apart. None entries: it can't be listed."""

    entries: tuple[Entry, ...] | None
    folders: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """Changes when a name, a size, a modification time or the right to read changes."""
        if self.entries is None:
            return "unreadable"
        lines = (f"{e.kind} {e.size} {e.mtime_ns} {len(e.name)}:".encode() + e.name for e in self.entries)
        return hashlib.sha256(b"\n".join(lines)).hexdigest()


@dataclass(frozen=True)
class Folder:
    """One folder to fingerprint: the process that does it has this id."""

    path: bytes
    relative: bytes
    listing: str
    leave_out: tuple[str, ...]
    files: int
    bytes: int

    @property
    def id(self) -> str:
        return process_id(self.path, self.listing, self.leave_out)


def look(path: bytes, leave_out: frozenset[bytes] = frozenset()) -> Listing:
    """List one folder. Nothing is opened or followed; what vanishes meanwhile is not there."""
    entries: list[Entry] = []
    folders: list[bytes] = []
    try:
        with os.scandir(path) as found:
            for entry in found:
                if entry.name in leave_out:
                    continue
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    folders.append(entry.name)
                else:
                    entries.append(Entry(entry.name, _kind(entry.path, about), about.st_size, about.st_mtime_ns))
    except OSError:
        return Listing(None, ())
    return Listing(tuple(sorted(entries, key=lambda e: e.name)), tuple(sorted(folders)))


def _kind(path: bytes, about: os.stat_result) -> Kind:
    if stat.S_ISREG(about.st_mode):
        return "file" if os.access(path, os.R_OK) else "unreadable"
    return "link" if stat.S_ISLNK(about.st_mode) else "other"


def plan(
    root: bytes,
    left_out: Mapping[bytes, tuple[str, ...]],
    found: Callable[[int, int], None] = lambda folders, files: None,
) -> list[Folder]:
    """Every folder below `root`, itself included, in order of relative paths. `left_out`: names to pass over, by
    folder. `found` hears how many folders and files there are so far."""
    folders: list[Folder] = []
    files = 0
    for folder in _walk(root, left_out):
        folders.append(folder)
        files += folder.files
        if len(folders) % 64 == 0:
            found(len(folders), files)
    found(len(folders), files)
    return sorted(folders, key=lambda folder: folder.relative)


def _walk(root: bytes, left_out: Mapping[bytes, tuple[str, ...]]) -> Iterator[Folder]:
    waiting = [(root, b".")]
    while waiting:
        path, relative = waiting.pop()
        names = left_out.get(path, ())
        listing = look(path, frozenset(os.fsencode(name) for name in names))
        regular = [entry for entry in listing.entries or () if entry.kind == "file"]
        yield Folder(path, relative, listing.digest, names, len(regular), sum(entry.size for entry in regular))
        for name in listing.folders:
            below = name if relative == b"." else relative + b"/" + name
            waiting.append((os.path.join(path, name), below))
