"""What a disk may hold after the power was cut: all that was synced, and of the rest whatever chance left."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec

from lab.disk import SECTOR, Acknowledged, Deleted, Operation, Synced, Truncated, Written

Files = dict[str, bytearray]
Unsynced = Written | Truncated


class Image(msgspec.Struct, frozen=True):
    """The files as the next boot finds them, and what had been acknowledged when the power was cut at `position`."""

    position: int
    files: dict[str, bytes]
    acknowledged: frozenset[str]


def images(log: Sequence[Operation], count: int, seed: int) -> Iterator[Image]:
    """`count` images of power cuts, at random positions and, as often, right after an acknowledgement."""
    chance = random.Random(seed)  # noqa: S311 - it decides what a disk forgets
    after_ack = [position + 1 for position, done in enumerate(log) if isinstance(done, Acknowledged)]
    cuts = sorted(
        chance.choice(after_ack) if after_ack and chance.random() < 0.5 else chance.randint(0, len(log))
        for _ in range(count)
    )
    disk = _Disk()
    position = 0
    for cut in cuts:
        for operation in log[position:cut]:
            disk.do(operation)
        position = cut
        yield Image(cut, disk.after_power_loss(chance), frozenset(disk.acknowledged))


class _Disk:
    def __init__(self) -> None:
        self._synced: Files = {}
        self._unsynced: dict[str, list[Unsynced]] = {}
        self.acknowledged: set[str] = set()

    def do(self, operation: Operation) -> None:
        match operation:
            case Written(file) | Truncated(file):
                self._unsynced.setdefault(file, []).append(operation)
            case Synced(file):
                for unsynced in self._unsynced.pop(file, []):
                    _apply(self._synced, unsynced)
            case Deleted(file):
                self._synced.pop(file, None)
                self._unsynced.pop(file, None)
            case Acknowledged(what):
                self.acknowledged.add(what)

    def after_power_loss(self, chance: random.Random) -> dict[str, bytes]:
        files = {name: bytearray(content) for name, content in self._synced.items()}
        for unsynced in self._unsynced.values():
            for operation in _survivors(unsynced, chance):
                _apply(files, operation)
        return {name: bytes(content) for name, content in files.items()}


def _survivors(unsynced: Sequence[Unsynced], chance: random.Random) -> Iterator[Unsynced]:
    """None of them, all, a prefix, any subset, or any subset in which writes are torn at sectors."""
    way = chance.choice(("none", "all", "prefix", "subset", "torn"))
    until = chance.randint(0, len(unsynced)) if way == "prefix" else len(unsynced)
    for operation in () if way == "none" else unsynced[:until]:
        if way in ("subset", "torn") and chance.random() < 0.5:
            continue
        if way == "torn" and isinstance(operation, Written):
            yield from _torn(operation, chance)
        else:
            yield operation


def _torn(write: Written, chance: random.Random) -> Iterator[Written]:
    """Some of its sectors: those of the disk, so the first and last piece may be shorter."""
    at = 0
    while at < len(write.data):
        size = SECTOR - (write.offset + at) % SECTOR
        if chance.random() < 0.5:
            yield Written(write.file, write.offset + at, write.data[at : at + size])
        at += size


def _apply(files: Files, operation: Unsynced) -> None:
    content = files.setdefault(operation.file, bytearray())
    match operation:
        case Written(_, offset, data):
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case Truncated(_, size):
            del content[size:]
