"""A program of a lab: a forked process with a line of JSON to and from it. For parents without threads."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

Message = dict[str, Any]


class Program:
    """One child process. Its end of the channel is held by it alone, so the channel ends when it does."""

    _open: ClassVar[set[socket.socket]] = set()

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid, self._channel = pid, channel
        self._received = b""
        self.exit_code: int | None = None

    @classmethod
    def fork(cls, main: Callable[[socket.socket], None]) -> Program:
        """Run `main(channel)` in a child; it exits with 0 when that returns, with 1 when that raises."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            cls._in_child(main, ours, theirs)
        theirs.close()
        cls._open.add(ours)
        return cls(pid, ours)

    @classmethod
    def _in_child(cls, main: Callable[[socket.socket], None], parents: socket.socket, ours: socket.socket) -> None:
        code = 1
        try:
            for channel in (*cls._open, parents):
                channel.close()
            main(ours)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def tell(self, **message: Any) -> None:
        """Send a message; to a program that has ended it goes nowhere."""
        try:
            self._channel.sendall(msgspec.json.encode(message) + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def hear(self, within_s: float) -> Message | None:
        """Its next message; None once it has ended. Raises TimeoutError."""
        while b"\n" not in self._received:
            if not select.select([self._channel], [], [], within_s)[0]:
                raise TimeoutError(f"program {self.pid} said nothing for {within_s} s")
            try:
                part = self._channel.recv(1 << 16)
            except ConnectionResetError:
                part = b""
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return msgspec.json.decode(line, type=Message)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, within_s: float) -> bool:
        """Whether it has ended by then; what it still says is dropped. Its exit code is negative for a signal."""
        if self.exit_code is None:
            try:
                while self.hear(within_s) is not None:
                    pass
            except TimeoutError:
                return False
            self._channel.close()
            self._open.discard(self._channel)
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return True


def ended_within(programs: Sequence[Program], within_s: float) -> list[Program]:
    """Those that have ended, as soon as one of them has, or none when the time is over."""
    readable, _, _ = select.select([program._channel for program in programs], [], [], max(0.0, within_s))
    return [program for program in programs if program._channel in readable and program.wait(0)]


class ChildChannel:
    """The child's end, on its event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def on(cls, channel: socket.socket) -> ChildChannel:
        return cls(*await asyncio.open_connection(sock=channel, limit=1 << 20))

    async def hear(self) -> Message | None:
        """The parent's next message, or None when the parent is gone."""
        line = await self._reader.readline()
        return msgspec.json.decode(line, type=Message) if line.endswith(b"\n") else None

    def tell(self, **message: Any) -> None:
        self._writer.write(msgspec.json.encode(message) + b"\n")

    async def flush(self) -> None:
        await self._writer.drain()
