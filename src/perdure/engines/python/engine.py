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
from perdure.engines.python.execution import Execution
from perdure.engines.python.journal import Journal
from perdure.engines.python.strands import enter_branch
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
        state = run.record.state
        fresh = state.last_sequence == 1 and state.attempt == 1  # nothing but this start is in the log
        if not fresh:
            run.on_stop(lambda: False)  # until the journal is read nobody knows where the code is to be told
        return self._run(code, arguments, run, fresh)

    async def _run(self, code: PythonCode, arguments: tuple[Any, ...], run: Run, fresh: bool) -> msgspec.Raw:
        task = asyncio.current_task()
        assert task is not None
        enter_branch(None)  # whoever started this may be code of another process
        journal = None if fresh else await self._journal(run)
        if uncovered := self._support.uncovered(run):  # reading may have taken long
            raise uncovered
        execution = Execution(run, self._support, journal, task, code.is_async)
        run.on_let_go(execution.fall_silent)
        try:
            return await self._run_code(execution, code, arguments, run)
        finally:
            execution.fall_silent()

    async def _run_code(
        self, execution: Execution, code: PythonCode, arguments: tuple[Any, ...], run: Run
    ) -> msgspec.Raw:
        context = ProcessContext(execution)
        try:
            if code.is_async:
                value = await code.function(context, *arguments)
            else:
                value = await self._in_thread(code, SyncContext(context), arguments, run)
            if execution.end is None and execution.awaited_children:
                await execution.wait_for_children()
        except BaseException as error:
            if isinstance(error, Exception):
                await execution.end_code()
            if execution.end is not None and not isinstance(error, Suspended):
                raise execution.end from error  # the code made something else of it
            raise
        await execution.end_code()
        if execution.end is not None:  # the code swallowed it
            raise execution.end
        return msgspec.Raw(code.output.encode(value))

    async def _journal(self, run: Run) -> Journal:
        """What the log says so far."""
        events: list[Event] = []
        more = True
        while more:
            after = events[-1].sequence if events else 0
            page = await self._support.registry.events_after(run.record.id, after, JOURNAL_PAGE)
            events += page.events
            more = page.more
        return Journal(events, run.record.state.failures)

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
                context.interrupt()
                if told or run.cancel_reason is None:
                    raise  # told twice: the bound for ending has passed, or the loop is going down
                told = True
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
