"""What one program says, to the others that follow it: from a thread of its own, never waiting for any of them."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from perdure.clock import Clock
from perdure.contract.live import Backlog, Recent
from perdure.model.live import PROGRESS, Chunk
from perdure.stores.group_commit import ThreadFuture
from perdure.stores.sqlite.wake import Addresses, new_sender, unlink_socket

DATAGRAM_BYTES = 96 * 1024
"""Chunks that are sent together have at most this many bytes; Linux takes datagrams of about 200 KiB by default."""
MOST_WAITING, MOST_WAITING_BYTES = 1_024, 1024 * 1024
MOST_PROGRAMS = 64
"""Programs that one program sends to at a time; each costs it a socket."""
MOST_HINTS, HINTS_TOGETHER = 16 * 1024, 256
"""Of progress: processes with a hint that waits, and hints that are sent together."""
SPACING_S, LONGEST_SPACING_S = 0.002, 0.05
GIVE_UP_AFTER = 200
"""Times in a row, each the longest spacing later, that a follower takes nothing before what waits for it is dropped."""
FRESH_MS = 1_000
"""A folder that has changed so lately may have changed once more within the same tick of its modification time."""

T = TypeVar("T")

_LINK = re.compile(r"([0-9a-f]{32})\.(.+)\.live")
_encode = msgspec.json.Encoder().encode


def digest_of(process_id: str) -> str:
    return hashlib.sha256(process_id.encode()).hexdigest()[:32]


class Fresh:
    """What was said and not given out yet: chunks, with the latest run of each process that can tell what came before,
    and one hint of progress for each process. Not for several threads."""

    def __init__(self) -> None:
        self.chunks = Backlog(MOST_WAITING, MOST_WAITING_BYTES)
        self.recents: dict[str, Recent] = {}
        self.hints: dict[str, Chunk] = {}

    def __bool__(self) -> bool:
        return bool(self.hints) or len(self.chunks) > 0

    def add(self, chunk: Chunk, recent: Recent) -> None:
        if chunk.channel == PROGRESS:
            _keep_last(self.hints, chunk.process_id, chunk, MOST_HINTS)
        else:
            self.chunks.add(chunk)
            _keep_last(self.recents, chunk.process_id, recent, MOST_WAITING)  # as many as there can be chunks


def _keep_last(kept: dict[str, T], process_id: str, one: T, most: int) -> None:
    kept.pop(process_id, None)
    kept[process_id] = one
    if len(kept) > most:
        del kept[next(iter(kept))]


class _Program:
    """Another program that follows something here, and what waits for it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.waiting = Backlog(MOST_WAITING, MOST_WAITING_BYTES)
        self.hints: dict[str, Chunk] = {}
        self.unsent: bytes | None = None
        self.futile = 0
        self.socket = new_sender()  # of its own: what it does not read is charged to the socket that sent it (unix(7))

    @property
    def has_waiting(self) -> bool:
        return self.unsent is not None or bool(self.hints) or len(self.waiting) > 0

    def hint(self, hint: Chunk) -> None:
        _keep_last(self.hints, hint.process_id, hint, MOST_HINTS)

    def _take(self) -> list[Chunk]:
        if len(self.waiting):
            return self.waiting.take(DATAGRAM_BYTES)
        return [self.hints.pop(process_id) for process_id in list(islice(self.hints, HINTS_TOGETHER))]

    def send(self) -> bool:
        """Send what waits; whether something was sent. Raises OSError if nobody has the socket bound any more."""
        sent = False
        while self.has_waiting:
            if self.unsent is None:
                self.unsent = _encode(self._take())
            try:
                self.socket.sendto(self.unsent, self.address)
            except BlockingIOError:
                break
            self.unsent, sent = None, True
        self.futile = 0 if sent or self.unsent is None else self.futile + 1
        if self.futile >= GIVE_UP_AFTER:
            self.waiting.clear()
            self.hints.clear()
            self.unsent, self.futile = None, 0
        return sent


class LiveSender:
    """Sends what this program publishes, from a thread that the first chunk starts."""

    def __init__(self, folder: Path, program: str, clock: Clock) -> None:
        self._folder, self._own_program, self._clock = os.path.abspath(folder), program, clock
        self._addresses = Addresses(self._folder)
        self._wake = threading.Condition()
        self._fresh = Fresh()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ended: ThreadFuture[None] = ThreadFuture()
        self._listed_mtime_ns = -1
        self._followers: dict[str, tuple[str, ...]] = {}  # digest of a process id -> the programs that follow it
        self._programs: dict[str, _Program] = {}  # the one that something was for last comes last
        self._introduced: set[tuple[str, str]] = set()

    def submit(self, chunk: Chunk, recent: Recent) -> None:
        """Any thread. What waits here too long is dropped, oldest first."""
        with self._wake:
            if self._closing:
                return
            self._fresh.add(chunk, recent)
            if self._thread is None:
                self._thread = self._begun()
            self._wake.notify()

    def _begun(self) -> threading.Thread | None:
        """The thread, or None where there can't be another one now: the next chunk tries again."""
        thread = threading.Thread(target=self._run, name="perdure-sqlite-live", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    def stop(self) -> ThreadFuture[None]:
        with self._wake:
            self._closing = True
            if self._thread is None and not self._ended.done():
                self._ended.set_result(None)
            self._wake.notify()
        return self._ended

    # --- in the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._carry_until_stopped()
        finally:
            for program in self._programs.values():
                program.socket.close()
            self._addresses.close()
            self._ended.set_result(None)

    def _carry_until_stopped(self) -> None:
        spacing_s, closing = SPACING_S, False
        while not closing:
            with self._wake:
                while not (self._fresh or self._closing or self._has_waiting()):
                    self._wake.wait()
                fresh, self._fresh = self._fresh, Fresh()
                closing = self._closing
            self._look_for_followers()
            self._give_out(fresh)
            sent = self._send()
            spacing_s = SPACING_S if sent else min(spacing_s * 2, LONGEST_SPACING_S)
            with self._wake:
                self._wake.wait_for(lambda: self._closing, spacing_s)

    def _has_waiting(self) -> bool:
        return any(program.has_waiting for program in self._programs.values())

    def _look_for_followers(self) -> None:
        try:
            mtime_ns = os.stat(self._folder).st_mtime_ns
            age_ms = self._clock.now().wall_ms - mtime_ns // 1_000_000
            if mtime_ns == self._listed_mtime_ns and age_ms > FRESH_MS:
                return
            found = [match.groups() for name in os.listdir(self._folder) if (match := _LINK.fullmatch(name))]
            self._addresses.close()  # the folder may be another one by now
            for known, program in self._programs.items():
                program.address = self._addresses.of(f"{known}.live")
        except OSError:  # no folder, or no descriptor to read it with: whoever is found again hears what is recent
            found, mtime_ns = [], -1
        self._listed_mtime_ns = mtime_ns
        pairs = {(digest, name) for digest, name in found if name != self._own_program}
        self._introduced &= pairs
        self._followers = {}
        for digest, name in pairs:
            self._followers[digest] = (*self._followers.get(digest, ()), name)
        for gone in self._programs.keys() - {name for _, name in pairs}:
            self._forget(gone)

    def _give_out(self, fresh: Fresh) -> None:
        """To each program what it follows; to one that has just come, what was said before as well."""
        if not self._followers:
            return
        for chunk in fresh.chunks.all():
            digest = digest_of(chunk.process_id)
            for name in self._followers.get(digest, ()):
                program = self._program(name)
                if program is None:
                    self._introduced.discard((digest, name))
                    continue
                if (digest, name) not in self._introduced:
                    self._introduced.add((digest, name))
                    for earlier in fresh.recents[chunk.process_id]():
                        program.waiting.add(earlier)
                program.waiting.add(chunk)
        for hint in fresh.hints.values():
            for name in self._followers.get(digest_of(hint.process_id), ()):
                if (program := self._program(name)) is not None:
                    program.hint(hint)

    def _program(self, name: str) -> _Program | None:
        """The program, now the last that something was for; None if it can have no socket now."""
        program = self._programs.pop(name, None)
        if program is None and len(self._programs) >= MOST_PROGRAMS and not self._has_made_room():
            return None
        try:
            program = program or _Program(self._addresses.of(f"{name}.live"))
        except OSError:
            return None
        self._programs[name] = program
        return program

    def _has_made_room(self) -> bool:
        """Take the socket of the program that has waited longest for something, or else of one that takes nothing."""
        for name, program in self._programs.items():
            if not program.has_waiting:
                self._programs.pop(name).socket.close()  # all was sent: it is not introduced anew
                return True
        stuck = max(self._programs, key=lambda name: self._programs[name].futile)
        if self._programs[stuck].futile == 0:
            return False
        self._forget(stuck)
        return True

    def _send(self) -> bool:
        sent = False
        for name, program in list(self._programs.items()):
            try:
                sent = program.send() or sent
            except (ConnectionRefusedError, FileNotFoundError):
                self._remove(name)
            except OSError:  # it can't be sent at all: too large for this system, say
                program.unsent = None
        return sent

    def _forget(self, name: str) -> None:
        self._programs.pop(name).socket.close()
        self._introduced = {pair for pair in self._introduced if pair[1] != name}

    def _remove(self, name: str) -> None:
        """The program is gone without a word: so go the names of its socket."""
        for digest, programs in list(self._followers.items()):
            if name in programs:
                unlink_socket(os.path.join(self._folder, f"{digest}.{name}.live"))
                self._followers[digest] = tuple(other for other in programs if other != name)
        unlink_socket(os.path.join(self._folder, f"{name}.live"))
        self._forget(name)
