"""What the programs of the kill lab write down, and where."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lab.ledger import Ledger


class Entry(msgspec.Struct, frozen=True):
    """The code of a process was entered: by whom, under what, when, and until when that was covered."""

    process_id: str
    kind: str
    attempt: int
    fence: int
    incarnation: str
    pid: int
    boot_ms: int
    deadline_ms: int


class StartAsked(msgspec.Struct, frozen=True, tag="asked"):
    """A start is about to be asked for."""

    process_id: str
    kind: str


class StartAnswered(msgspec.Struct, frozen=True, tag="answered"):
    """A start was acknowledged, or what it raised."""

    process_id: str
    error: str | None = None


class WorkerUp(msgspec.Struct, frozen=True):
    incarnation: str
    pid: int


class Killed(msgspec.Struct, frozen=True):
    """A worker is about to kill itself at a moment."""

    moment: str
    pid: int
    process_id: str | None


class Ledgers:
    """All of them, in one folder beside the database."""

    def __init__(self, folder: Path) -> None:
        self.entries = Ledger(folder / "entries.jsonl", Entry)
        self.asked = Ledger(folder / "asked.jsonl", StartAsked)
        self.answered = Ledger(folder / "answered.jsonl", StartAnswered)
        self.workers = Ledger(folder / "workers.jsonl", WorkerUp)
        self.kills = Ledger(folder / "kills.jsonl", Killed)
