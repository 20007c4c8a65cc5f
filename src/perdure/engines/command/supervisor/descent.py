"""Programs below another one: who they are, and their end."""

from __future__ import annotations

import os
import signal


def start_tick(pid: int) -> int:
    """When it started, in ticks since boot (field 22 of proc_pid_stat(5)); -1 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def descendants(root: int) -> set[int]:
    """The programs below `root` now, those that have ended left out. Without a /proc: none are known."""
    children: dict[int, list[int]] = {}
    ended: set[int] = set()
    try:
        entries = os.listdir("/proc")
    except OSError:
        entries = []
    for entry in entries:
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
            if fields[0] in (b"Z", b"X"):
                ended.add(int(entry))
    found: set[int] = set()
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ()) if child not in found]
        found.update(level)
    return found - ended


def send(number: int, pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:  # it has ended, or is another user's
            continue


def kill_all(root: int) -> None:
    """Stop everything first, until nothing new is found, so that nothing forks away from under the kill."""
    stopped: set[int] = set()
    for _ in range(50):
        new = descendants(root) - stopped
        if not new:
            break
        send(signal.SIGSTOP, new)
        stopped |= new
    send(signal.SIGKILL, stopped)
