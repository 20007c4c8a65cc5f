"""Programs below another one: who they are, and their end."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def start_tick(pid: int) -> int:
    """When it started, in ticks since boot (field 22 of proc_pid_stat(5)); -1 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def programs_below(root: int) -> dict[int, tuple[int, bool]]:
    """The programs below `root` now: the process group of each, and whether it lives. Without a /proc: none."""
    children: dict[int, list[int]] = {}
    found: dict[int, tuple[int, bool]] = {}
    try:
        entries = os.listdir("/proc")
    except OSError:
        entries = []
    about: dict[int, tuple[int, bool]] = {}
    for entry in entries:
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    state, parent, group = file.read().rpartition(b")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            children.setdefault(int(parent), []).append(int(entry))
            about[int(entry)] = int(group), state not in (b"Z", b"X")
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ()) if child not in found]
        found.update((pid, about[pid]) for pid in level)
    return found


def descendants(root: int) -> set[int]:
    """The programs below `root` that live."""
    return {pid for pid, (_, lives) in programs_below(root).items() if lives}


def send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:  # it has ended, or is another user's
            continue


def send_to_group(number: int, group: int) -> None:
    try:
        os.killpg(group, number)
    except OSError:  # it has ended, or is another user's
        return


def kill_all(root: int) -> None:
    """Stop everything first, until nothing new is found, so that nothing forks away from under the kill.

    Whole groups are stopped, as the kernel does that to all members at once. Of what runs away by forking and ending,
    faster than anyone could look, the dead tell the group: so call this before they are collected.
    """
    mine = os.getpgrp()
    stopped: set[int] = set()
    for _ in range(50):
        new = {group for group, _ in programs_below(root).values()} - stopped - {mine}
        if not new:
            break
        for group in new:
            send_to_group(signal.SIGSTOP, group)
        stopped |= new
    for group in stopped:
        send_to_group(signal.SIGKILL, group)
    send(signal.SIGKILL, descendants(root))
