"""Runs Python functions: `async def` on the event loop, plain `def` in a thread, both over the journal."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Collection, Coroutine
from typing import Any

import msgspec

from perdure.contract.ports import Run, Suspended
from perdure.engines.python.code import PythonCode
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.journal import Journal
from perdure.engines.python.log_effects import LogEffects
from perdure.engines.python.support import Support
from perdure.engines.python.sync_context import SyncContext
from perdure.model.events import Event
from perdure.model.registration import Definition

JOURNAL_PAGE = 1_000


class PythonEngine:
    """An engine over a table of functions. Its coroutines raise Suspended when the process's row was suspended."""

    kind = "python"

    def __init__(self, support: Support, codes: dict[Definition, PythonCode]) -> None:
        self._support, self._codes = support, codes

    @property
    def definitions(self) -> Collection[Definition]:
        return self._codes.keys()

    def prepare(self, run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
        code = self._codes[run.record.registration.definition]
        arguments: tuple[Any, ...] = ()
        if code.input is not None:
            arguments = (code.input.decode(run.record.registration.input),)
        run.on_stop(lambda: False)  # until the journal is read nobody knows where the code is to be told
        return self._run(code, arguments, run)

    async def _run(self, code: PythonCode, arguments: tuple[Any, ...], run: Run) -> msgspec.Raw:
        effects = LogEffects(run, await self._journal(run), self._support)
        run.on_stop(effects.told_to_stop)
        context = ProcessContext(run, effects, self._support)
        task = asyncio.current_task()
        assert task is not None
        context.guard.admit(task)
        effects.interrupts(task)
        if code.is_async:
            value = await code.function(context, *arguments)
        else:
            value = await self._in_thread(code, SyncContext(run, context), arguments, run)
        if effects.lot.suspended:  # the code swallowed it; the row is suspended all the same
            raise Suspended
        await context.wait_for_children()
        return msgspec.Raw(code.output.encode(value))

    async def _journal(self, run: Run) -> Journal:
        """What the log says so far. At the first start nothing but that start is in it."""
        state = run.record.state
        if state.last_sequence == 1 and state.attempt == 1:
            return Journal()
        events: list[Event] = []
        more = True
        while more:
            after = events[-1].sequence if events else 0
            page = await self._support.registry.events_after(run.record.id, after, JOURNAL_PAGE)
            events += page.events
            more = page.more
        return Journal(events, state.failures)

    async def _in_thread(self, code: PythonCode, context: SyncContext, arguments: tuple[Any, ...], run: Run) -> Any:
        """A thread can't be interrupted: told to stop, the code sees it at its next operation, or by
        `ctx.check_cancelled()`. Its end is waited for, and its answer is what it raises or returns."""
        copied = contextvars.copy_context()
        working = self._support.in_thread(functools.partial(copied.run, _called, code, context, arguments))
        told = False
        while not working.done():
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                if told or run.cancel_reason is None:
                    raise  # told twice: the bound for ending has passed, or the loop is going down
                told = True
                context.interrupt()
        value, error = working.result()
        if error is not None:
            raise error
        return value


def _called(code: PythonCode, context: SyncContext, arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """What the code returned or raised, as values: a future does not carry every kind of exception as it is."""
    try:
        return code.function(context, *arguments), None
    except (Exception, asyncio.CancelledError, Suspended) as error:
        return None, error
