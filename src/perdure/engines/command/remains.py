"""Ends what a supervisor that was itself killed could not: programs known by a mark in their environment."""

from __future__ import annotations

import os
import signal

ROUNDS = 50


def kill_marked(name: str, value: str) -> None:
    """SIGKILL to every program whose environment at its start held the variable, until none is found.

    Programs that have cleared their environment are not found (see docs/commands.md).
    """
    mark = f"{name}={value}".encode()
    for _ in range(ROUNDS):
        found = [pid for pid in _all() if _has(pid, mark)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # it has ended
                continue


def _all() -> list[int]:
    try:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:
        return []


def _has(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False
