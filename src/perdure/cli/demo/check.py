"""The same fingerprint once more, by another way: os.walk, one thread, no processes, nothing shared with the rest."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path


class Stopped(Exception):
    """Whoever asked for the check doesn't want it any more."""


def independent_fingerprint(
    root: bytes, left_out: Mapping[bytes, tuple[str, ...]], folder_done: Callable[[int], None], stop: threading.Event
) -> str:
    """The whole fingerprint of the tree, as the package's docstring defines it. `folder_done` hears of each folder."""
    by_folder: dict[bytes, bytes] = {}

    def cannot_list(error: OSError) -> None:
        by_folder[os.path.relpath(error.filename, root)] = _field(b"unreadable") + _field(b"") + _field(b"")

    for place, folder_names, file_names in os.walk(root, followlinks=False, onerror=cannot_list):
        if stop.is_set():
            raise Stopped
        skipped = {os.fsencode(name) for name in left_out.get(place, ())}
        linked = [name for name in folder_names if os.path.islink(os.path.join(place, name))]
        folder_names[:] = [name for name in folder_names if name not in skipped and name not in linked]
        said = b""
        for name in sorted({*file_names, *linked} - skipped):
            said += _entry(os.path.join(place, name), name)
        by_folder[os.path.relpath(place, root)] = said
        folder_done(1)
    whole = hashlib.sha256()
    for relative in sorted(by_folder):
        whole.update(_field(relative) + _field(hashlib.sha256(by_folder[relative]).digest()))
    return whole.hexdigest()


def _entry(path: bytes, name: bytes) -> bytes:
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            kind, content = b"link", os.readlink(path)
        elif stat.S_ISREG(mode):
            with Path(os.fsdecode(path)).open("rb") as file:
                kind, content = b"file", hashlib.file_digest(file, "sha256").digest()
        else:
            kind, content = b"other", b""
    except FileNotFoundError:
        return b""
    except OSError:
        kind, content = b"unreadable", b""
    return _field(kind) + _field(name) + _field(content)


def _field(content: bytes) -> bytes:
    return str(len(content)).encode() + b":" + content + b","
