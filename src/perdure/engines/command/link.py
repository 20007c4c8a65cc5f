"""The worker's end of a supervisor: starts it, tells it, hears it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from perdure.engines.command.request import CommandRequest
from perdure.engines.python.support import Support

PACKAGE = Path(__file__).parents[2]

BOOT = (
    "import sys; p = type(sys)('perdure'); p.__path__ = [sys.argv[1]]; sys.modules['perdure'] = p; "
    "from perdure.engines.command.supervisor.main import main; main()"
)
"""Imports the supervisor's modules without the package's own imports: it must start fast, and needs none of them."""


class Started(msgspec.Struct, frozen=True):
    """The command has been entered. `*_start` are in clock ticks since boot (field 22 of proc_pid_stat(5))."""

    pid: int
    pid_start: int
    supervisor_pid: int
    supervisor_start: int
    subreaper: bool


class NotStarted(msgspec.Struct, frozen=True):
    """It could not be entered: at which stage, and the number of the system's error."""

    stage: str
    errno: int


class Lines(msgspec.Struct, frozen=True):
    stream: str
    is_cut: bool
    lines: list[bytes]


class BoundReached(msgspec.Struct, frozen=True):
    stream: str
    bound: str


class Ended(msgspec.Struct, frozen=True):
    """`how` the command ended, with its exit code or signal number; `left` are programs that could not be ended."""

    how: Literal["exit", "signal", "left"]
    number: int
    stdout_lines: int
    stdout_bytes: int
    stderr_lines: int
    stderr_bytes: int
    stored_lines: int
    is_cut: bool
    bound: str
    left: list[int]
    tail: bytes


class Broken(msgspec.Struct, frozen=True):
    """The supervisor met a bug of its own."""

    story: str


Message = Started | NotStarted | Lines | BoundReached | Ended | Broken


class SupervisorLink:
    """One supervisor. Its standard output ends when it does."""

    def __init__(
        self, program: subprocess.Popen[bytes], reader: asyncio.StreamReader, hearing: asyncio.ReadTransport,
        telling: asyncio.WriteTransport, support: Support,
    ) -> None:  # fmt: skip
        self._program, self._reader, self._hearing, self._telling = program, reader, hearing, telling
        self._support = support

    @classmethod
    async def start(
        cls, request: CommandRequest, env: Mapping[str, str], grace_ms: int, lifeline: int | None, support: Support
    ) -> SupervisorLink:
        """`lifeline` is a descriptor that the supervisor keeps open. Raises OSError if there is no room for another
        program."""
        kept = () if lifeline is None else (lifeline,)
        program = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; as short as in asyncio's subprocesses
            [sys.executable, "-I", "-S", "-c", BOOT, str(PACKAGE), *map(str, kept)], pass_fds=kept,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
            hearing, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), program.stdout)
            telling, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, program.stdin)
        except BaseException:
            program.kill()  # it was not told yet what to run
            program.communicate()
            raise
        telling.write(spec_text(request, env, grace_ms))
        return cls(program, reader, hearing, telling, support)

    def tell(self, what: Literal["stop", "kill"]) -> None:
        if not self._telling.is_closing():
            self._telling.write(what[:1].encode())

    async def hear(self) -> Message | None:
        """The next message; None when the supervisor has gone."""
        try:
            head = await self._reader.readexactly(5)
            body = await self._reader.readexactly(int.from_bytes(head[1:], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return decoded(head[:1], body)

    async def close(self) -> None:
        """Let go of it: it ends what is left by itself, and this waits until it has ended."""
        self._telling.close()
        self._hearing.close()
        await self._support.in_thread(self._program.wait)


def spec_text(request: CommandRequest, env: Mapping[str, str], grace_ms: int) -> bytes:
    """What `supervisor.wire.Spec` reads. No field can hold a NUL: argv and env were checked."""
    numbers = (
        os.getpid(), grace_ms, request.max_lines, request.max_line_bytes, request.max_output_bytes, len(request.argv)
    )  # fmt: skip
    fields = [str(number) for number in numbers]
    fields += [request.cwd or "", *request.argv, *(f"{name}={value}" for name, value in env.items())]
    text = b"\0".join(field.encode("utf-8", "surrogateescape") for field in fields)
    return len(text).to_bytes(4, "big") + text


def decoded(kind: bytes, body: bytes) -> Message:
    match kind:
        case b"S":
            pid, start, supervisor, supervisor_start, subreaper = map(int, body.split(b"\0"))
            return Started(pid, start, supervisor, supervisor_start, bool(subreaper))
        case b"N":
            stage, errno = body.split(b"\0")
            return NotStarted(stage.decode(), int(errno))
        case b"L":
            stream, cut, text = body.split(b"\0", 2)
            return Lines(stream.decode(), cut == b"1", text.split(b"\n"))
        case b"B":
            stream, bound = body.split(b"\0")
            return BoundReached(stream.decode(), bound.decode())
        case b"E":
            how, *numbers, bound, left, tail = body.split(b"\0", 10)
            number, out_lines, out_bytes, err_lines, err_bytes, stored, cut_ = map(int, numbers)
            named: Literal["exit", "signal", "left"] = "exit" if how == b"exit" else "left"
            return Ended(
                "signal" if how == b"signal" else named, number, out_lines, out_bytes, err_lines, err_bytes, stored,
                bool(cut_), bound.decode(), [int(pid) for pid in left.split()], tail,
            )  # fmt: skip
        case _:
            return Broken(body.decode("utf-8", "replace"))
