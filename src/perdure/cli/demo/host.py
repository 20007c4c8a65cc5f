"""The demo's host: one definition, a plain function that runs in a thread and may run again."""

from __future__ import annotations

import hashlib
import os
import time

import msgspec

from perdure import Host, Process, SyncContext, WorkerOptions
from perdure.cli.demo.names import decode_path
from perdure.cli.demo.walk import Entry, look
from perdure.contract.ports import EventSink

CHUNK_BYTES = 1024 * 1024
NAP_S = 0.05


class FolderToRead(msgspec.Struct, frozen=True):
    """One folder, by its encoded absolute path, as it stood when the process was started."""

    path: str
    listing: str
    leave_out: tuple[str, ...] = ()


class FolderRead(msgspec.Struct, frozen=True):
    """The fingerprint of what stands directly in a folder, and what it was made from."""

    fingerprint: str
    files: int
    bytes: int
    links: int = 0
    others: int = 0
    unreadable: int = 0


class FolderChanged(Exception):
    """The folder is no longer what was to be fingerprinted: it is done anew under another id."""

    retryable = False


def make_host(
    url: str, *, concurrency: int, slow_ms: int = 0, name: str | None = None, sink: EventSink | None = None
) -> tuple[Host, Process[FolderToRead, FolderRead]]:
    """A host that can fingerprint folders. `slow_ms` is slept in each one, to have time to interfere."""
    host = Host(url, name=name, options=WorkerOptions(concurrency=concurrency, cancel_grace_ms=5_000), sink=sink)

    @host.process(recovery="rerunnable", name="demo-fingerprint", max_deaths=1_000)
    def fingerprint(ctx: SyncContext, folder: FolderToRead) -> FolderRead:
        _nap(ctx, slow_ms)
        return read_folder(ctx, folder)

    return host, fingerprint


def read_folder(ctx: SyncContext, folder: FolderToRead) -> FolderRead:
    """Hash the files of one folder. Raises FolderChanged if it is not, or does not stay, as it was listed."""
    path, leave_out = decode_path(folder.path), frozenset(os.fsencode(name) for name in folder.leave_out)
    listing = look(path, leave_out)
    if listing.digest != folder.listing:
        raise FolderChanged(f"{folder.path} has changed since it was listed")
    if listing.entries is None:
        return FolderRead(_digest([(b"unreadable", b"", b"")]), 0, 0, unreadable=1)
    fields, read_bytes, kinds = [], 0, {"file": 0, "link": 0, "other": 0, "unreadable": 0}
    for entry in listing.entries:
        ctx.check_cancelled()
        kind, content, size = _content(ctx, path, entry)
        kinds[kind] += 1
        read_bytes += size
        fields.append((kind.encode(), entry.name, content))
    if look(path, leave_out).digest != folder.listing:
        raise FolderChanged(f"{folder.path} changed while it was read")
    return FolderRead(
        _digest(fields), kinds["file"], read_bytes, kinds["link"], kinds["other"], kinds["unreadable"]
    )  # fmt: skip


def _content(ctx: SyncContext, folder: bytes, entry: Entry) -> tuple[str, bytes, int]:
    path = os.path.join(folder, entry.name)
    if entry.kind == "link":
        return "link", os.readlink(path), 0
    if entry.kind != "file":
        return entry.kind, b"", 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return "unreadable", b"", 0
    found, size = hashlib.sha256(), 0
    try:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
            ctx.check_cancelled()
    except OSError:
        return "unreadable", b"", 0
    finally:
        os.close(descriptor)
    return "file", found.digest(), size


def _digest(entries: list[tuple[bytes, bytes, bytes]]) -> str:
    return hashlib.sha256(b"".join(netstring(field) for entry in entries for field in entry)).hexdigest()


def netstring(field: bytes) -> bytes:
    return b"%d:%s," % (len(field), field)


def combine(folders: list[tuple[bytes, str]]) -> str:
    """The whole fingerprint of (relative path, fingerprint) pairs in order of their paths."""
    whole = hashlib.sha256()
    for relative, fingerprint in folders:
        whole.update(netstring(relative) + netstring(bytes.fromhex(fingerprint)))
    return whole.hexdigest()


def _nap(ctx: SyncContext, slow_ms: int) -> None:
    until_s = time.monotonic() + slow_ms / 1000
    while (left_s := until_s - time.monotonic()) > 0:
        ctx.check_cancelled()
        time.sleep(min(NAP_S, left_s))
