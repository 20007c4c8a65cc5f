"""Live output between the programs on one file: datagrams, and only to those that follow.

A program that follows binds one datagram socket in a folder beside the database, `<program>.live`, and gives it one
more name, by a hard link, for each process that it follows: `<digest of the process id>.<program>.live`. So a program
that publishes sees in the folder who follows what, and sends nothing to anybody else. Nothing is ever waited for: what
a follower does not take in time is dropped, oldest first.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec

from perdure.clock import Clock
from perdure.contract.live import RECENT_BYTES, RECENT_CHUNKS, Backlog, Recent, Take
from perdure.model.live import RUN_OVER, Chunk
from perdure.stores.group_commit import ThreadFuture
from perdure.stores.live import LocalWire
from perdure.stores.sqlite.live_sender import LiveSender, digest_of
from perdure.stores.sqlite.wake import bind_socket, new_sender, unlink_socket

LARGEST_DATAGRAM = 256 * 1024

_decode = msgspec.json.Decoder(list[Chunk]).decode


class SqliteLiveWire:
    """One program's side. Made where the registry is, on whose loop it is closed: `close` ends the hearing and removes
    the names, `stop` ends the sending."""

    def __init__(self, folder: Path, program: str, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._local = LocalWire()
        self._ears = LiveEars(folder, program, loop, self._local)
        self._sender = LiveSender(folder, program, clock)

    def send(self, chunk: Chunk, recent: Recent) -> None:
        self._local.send(chunk, recent)
        self._sender.submit(chunk, recent)

    def attend(self, process_id: str) -> Callable[[], None]:
        self._ears.listen(process_id)
        return partial(self._ears.unlisten, process_id)

    def follow(self, process_id: str, take: Take) -> Callable[[], None]:
        end = self._local.follow(process_id, take)
        for chunk in self._ears.heard_lately(process_id):
            take(chunk)
        return end

    def stop(self) -> ThreadFuture[None]:
        """Send what waits, if it can be sent at once, then end. The future is done when nothing more will be sent."""
        return self._sender.stop()

    def close(self) -> None:
        """On the loop."""
        self._ears.close()


class LiveEars:
    """The socket of a program that follows, and its names. Used on the event loop."""

    def __init__(self, folder: Path, program: str, loop: asyncio.AbstractEventLoop, local: LocalWire) -> None:
        self._folder, self._program, self._loop, self._local = folder, program, loop, local
        self._socket: socket.socket | None = None
        self._path = ""
        self._opened_by = os.getpid()
        self._closed = False
        self._followed: Counter[str] = Counter()
        self._heard: dict[str, Backlog] = {}

    def listen(self, process_id: str) -> None:
        """Let other programs know that this one follows the process; where that can't be they won't, until the next
        follower here."""
        self._followed[process_id] += 1
        if process_id not in self._heard and self._is_open() and self._is_named(process_id):
            self._heard[process_id] = Backlog(RECENT_CHUNKS, RECENT_BYTES)

    def heard_lately(self, process_id: str) -> Sequence[Chunk]:
        """For one more follower here: to a program it is said once."""
        heard = self._heard.get(process_id)
        return () if heard is None else heard.all()

    def unlisten(self, process_id: str) -> None:
        self._followed[process_id] -= 1
        if self._followed[process_id] <= 0:
            del self._followed[process_id]
            if self._heard.pop(process_id, None) is not None and self._socket is not None:
                unlink_socket(self._link(process_id))

    def _link(self, process_id: str) -> str:
        return os.path.join(self._folder, f"{digest_of(process_id)}.{self._program}.live")

    def _is_named(self, process_id: str) -> bool:
        try:
            os.link(self._path, self._link(process_id))
        except FileExistsError:  # left by a program of the same name: it is the name that tells
            return True
        except OSError:
            return False
        return True

    def _is_open(self) -> bool:
        if self._socket is None and not self._closed and hasattr(socket, "AF_UNIX"):
            try:
                self._open()
            except (OSError, ValueError):
                return False
        return self._socket is not None

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as opened:  # what fails half-way leaves nothing open
            bound = opened.enter_context(new_sender())
            path = bind_socket(bound, self._folder, f"{self._program}.live")
            opened.callback(unlink_socket, path)
            self._loop.add_reader(bound.fileno(), self._hear)
            opened.pop_all()
        self._socket, self._path = bound, path

    def _hear(self) -> None:
        """Bounded: under a flood the rest stays for the next turn of the loop."""
        for _ in range(64):
            try:
                assert self._socket is not None
                datagram = self._socket.recv(LARGEST_DATAGRAM)
            except OSError:  # nothing left
                return
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # of another version, perhaps
                for chunk in _decode(datagram):
                    whole = msgspec.structs.replace(chunk, payload=chunk.payload.copy())  # it was a view of all of them
                    self._remember(whole)
                    self._local.send(whole, _nothing)

    def _remember(self, chunk: Chunk) -> None:
        heard = self._heard.get(chunk.process_id)
        if heard is not None and chunk.channel == RUN_OVER:
            heard.clear()
        elif heard is not None and chunk.number:
            heard.add(chunk)

    def close(self) -> None:
        self._closed = True  # whoever still has a handle may follow: that binds nothing anew
        bound, self._socket = self._socket, None
        if bound is None or os.getpid() != self._opened_by:
            return
        self._loop.remove_reader(bound.fileno())
        bound.close()
        for process_id in self._followed:
            unlink_socket(self._link(process_id))
        unlink_socket(self._path)


def _nothing() -> Sequence[Chunk]:
    return ()
