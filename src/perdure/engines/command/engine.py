"""Runs commands: each under a supervisor of its own, which ends whatever is left of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Coroutine
from typing import Any, Literal, assert_never

import msgspec

from perdure.contract.ports import Run
from perdure.engines.command.ends import CommandFailed, code_of, result_or_failure
from perdure.engines.command.link import (
    BoundReached,
    Broken,
    Ended,
    Lines,
    Message,
    NotStarted,
    Started,
    SupervisorLink,
)
from perdure.engines.command.record import CommandLog
from perdure.engines.command.remains import kill_marked
from perdure.engines.command.request import COMMAND, REQUEST, RESULT, CommandRequest, environment
from perdure.engines.python.support import Support
from perdure.model.registration import Definition

MARK = "PERDURE_COMMAND"
"""A variable of the command's environment by which its programs are known if its supervisor is killed."""


class CommandEngine:
    """An engine for commands. `cancel_grace_ms` is what the worker gives cancelled code: a command's own grace is kept
    within four fifths of it, so that the command is gone before its end is written."""

    kind = "command"

    def __init__(self, support: Support, cancel_grace_ms: int) -> None:
        self._support, self._longest_grace_ms = support, cancel_grace_ms * 4 // 5

    @property
    def definitions(self) -> Collection[Definition]:
        return (COMMAND,)

    def prepare(self, run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
        return self._run(REQUEST.decode(run.record.registration.input), run)

    async def _run(self, request: CommandRequest, run: Run) -> msgspec.Raw:
        """Told to stop, pass it on (told again: at once), and raise it only when nothing of the command is left."""
        attendance = Attendance(request, run, self._support, min(request.grace_ms, self._longest_grace_ms))
        hearing = self._support.spawn(attendance.hear(), f"perdure-command:{run.record.id}")
        told: asyncio.CancelledError | None = None
        while not hearing.done():
            try:
                await asyncio.wait({hearing})
            except asyncio.CancelledError as error:
                attendance.tell("stop" if told is None else "kill")
                told = told or error
        if told is not None:
            if not hearing.cancelled():
                hearing.exception()  # taken note of: how it ended once it was told makes no difference
            raise told
        return msgspec.Raw(RESULT.encode(result_or_failure(request, hearing.result())))


class Attendance:
    """One command, from the start of its supervisor to the supervisor's end. Its task is never cancelled by a run."""

    def __init__(self, request: CommandRequest, run: Run, support: Support, grace_ms: int) -> None:
        self._request, self._run, self._support, self._grace_ms = request, run, support, grace_ms
        self._log = CommandLog(run, support)
        self._mark = support.ids.token()
        self._link: SupervisorLink | None = None
        self._told: Literal["stop", "kill"] | None = None

    def tell(self, what: Literal["stop", "kill"]) -> None:
        self._told = what
        if self._link is not None:
            self._link.tell(what)

    async def hear(self) -> Message | None:
        """The last word of the supervisor; None if it has gone without one."""
        own = {
            MARK: self._mark, "PERDURE_PROCESS_ID": self._run.record.id, "PERDURE_FENCE": str(self._run.lease.fence)
        }  # fmt: skip
        env = environment(self._request.env, os.environ, own)
        try:
            lifeline = self._support.registry.lifeline(self._run.lease.owner.incarnation)
            self._link = await SupervisorLink.start(self._request, env, self._grace_ms, lifeline, self._support)
        except OSError as error:
            raise CommandFailed("not_started", f"its supervisor could not be started: {error.strerror}") from error
        if self._told is not None:
            self._link.tell(self._told)
        last: Message | None = None
        try:
            while (message := await self._link.hear()) is not None:
                last = message
                await self._take(message)
        finally:
            await self._link.close()
            if not isinstance(last, Ended | NotStarted):
                await self._support.in_thread(lambda: kill_marked(MARK, self._mark))
        return last

    async def _take(self, message: Message) -> None:
        match message:
            case Started():
                await self._log.started(message)
            case Lines():
                await self._log.output(message)
            case BoundReached():
                await self._log.bound_reached(message)
            case Ended():
                await self._log.ended(message, code_of(message))
            case NotStarted() | Broken():
                pass
            case _:
                assert_never(message)
