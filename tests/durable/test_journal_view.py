"""The journal as tests and tools read it: what each operation of a process has left in it."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import JournalEntry, ProcessContext, Retry
from perdure.engines.python.journal_view import journal_of
from perdure.errors import DecodeError, StepFailed, UnknownProcess
from perdure.host import Host
from perdure.model.events import Event
from perdure.model.outcomes import Completed
from tests.durable.bodies import Body, double, go, one
from tests.durable.simulated import Machine, simulate


def journal_after(body: Body, act: Callable[[Host], Awaitable[object]] | None = None, **options: Any) -> list[Any]:
    """(kind, key, status, value) of what a process with this body leaves in its journal."""
    return [(entry.kind, entry.key, entry.status, entry.value) for entry in entries_after(body, act, **options)]


def entries_after(
    body: Body, act: Callable[[Host], Awaitable[object]] | None = None, **options: Any
) -> tuple[JournalEntry, ...]:
    async def main() -> tuple[JournalEntry, ...]:
        machine = Machine(one(body, **options))
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            if act is not None:
                await asyncio.sleep(10)
                await act(host)
            await machine.ended("p")
            return await run.journal()

    return simulate(main)


def test_a_step_shows_its_arguments_its_value_and_its_tries() -> None:
    tries: list[int] = []

    async def flaky(n: int, *, unit: str) -> list[str]:
        tries.append(n)
        if len(tries) == 1:
            raise ValueError("not yet")
        return [f"{n} {unit}"]

    async def body(ctx: ProcessContext) -> None:
        await ctx.step(flaky, 3, unit="mm", key="measured", retry=Retry(max_attempts=2))

    (entry,) = entries_after(body)
    assert (entry.kind, entry.key, entry.status, entry.attempt) == ("step", "measured", "completed", 1)
    assert entry.arguments == [3, {"unit": "mm"}]
    assert (entry.value, entry.raw_value) == (["3 mm"], msgspec.Raw(b'["3 mm"]'))
    assert (entry.tries, entry.error) == (2, None)


def test_a_step_that_failed_shows_its_error_and_no_value() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.step(fails)
        except StepFailed:
            return

    (entry,) = entries_after(body)
    assert (entry.kind, entry.status, entry.value) == ("step", "failed", None)
    assert entry.error is not None
    assert (entry.error.type, entry.error.message) == ("ValueError", "no")


def test_a_step_that_was_tried_again_with_its_process_shows_both_attempts() -> None:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")
        return len(tries)

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(flaky)

    entries = entries_after(body, retry=Retry(max_attempts=2))
    assert [(entry.attempt, entry.status, entry.value) for entry in entries] == [
        (1, "retried", None),
        (2, "completed", 2),
    ]


def test_waits_and_timers_show_what_they_were_given_and_when_they_are_over() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.sleep(1)
        await ctx.wait(go, timeout=100)
        with pytest.raises(TimeoutError):
            await ctx.wait(go, timeout=5, key="late")

    async def act(host: Host) -> int:
        return await host.get_handle("p").signal(go, 7)

    assert journal_after(body, act) == [
        ("timer", "sleep", "over", None), ("wait", "sleep", "elapsed", None),
        ("timer", "wait:go", "over", None), ("wait", "wait:go", "signalled", 7),
        ("timer", "late", "over", None), ("wait", "late", "timed_out", None),
    ]  # fmt: skip


def test_a_timer_that_is_not_over_shows_when_it_is_due_and_a_wait_which_signal_it_took() -> None:
    async def main() -> None:
        async def body(ctx: ProcessContext) -> None:
            await ctx.wait(go)
            await ctx.sleep(1_000)

        machine = Machine(one(body))
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            sequence = await run.signal(go, 1)
            await asyncio.sleep(10)
            waited, timer = await run.journal()
            assert (waited.signal_sequence, waited.due_at_ms) == (sequence, None)
            assert (timer.kind, timer.status) == ("timer", "set")
            assert timer.due_at_ms is not None
            assert timer.at_ms - 10 < timer.due_at_ms - 1_000_000 <= timer.at_ms  # counted from before it was written

    simulate(main)


def test_a_race_shows_who_won_and_values_and_versions_what_they_are() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.race(ctx.wait(go), ctx.step(double, 2, key="quick"))
        await ctx.uuid()
        await ctx.version("new-fee")

    entries = {entry.kind: entry for entry in entries_after(body)}
    assert (entries["race"].value, entries["race"].losers) == (1, ("wait:go",))
    assert len(entries["value"].value) == 36
    assert (entries["version"].key, entries["version"].value) == ("new-fee", 2)


def test_a_child_shows_its_id_its_value_or_its_error() -> None:
    async def main() -> None:
        def define(host: Host) -> None:
            @host.process(recovery="rerunnable")
            async def child(ctx: ProcessContext, n: int) -> int:
                if n < 0:
                    raise ValueError("negative")
                return n

            @host.process(recovery="rerunnable")
            async def parent(ctx: ProcessContext) -> None:
                good = await ctx.start(child, 4, key="good")
                bad = await ctx.start(child, -1, key="bad")
                await good.result()
                await bad.result()

        machine = Machine(define)
        async with machine.host() as host:
            run = await host.start(host.find_process("parent"), id="p")
            await machine.ended("p")
            started, _, good, bad = await run.journal()
            assert (started.kind, started.status) == ("child", "started")
            assert started.child_id is not None
            assert good.key == f"result:{started.child_id}"
            assert (good.status, good.value, good.outcome) == ("child_ended", 4, Completed(msgspec.Raw(b"4")))
            assert bad.value is None
            assert bad.error is not None
            assert bad.error.message == "negative"

    simulate(main)


def test_where_a_process_was_cancelled_is_an_entry() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.wait(go)

    async def act(host: Host) -> object:
        return await host.get_handle("p").cancel("enough")

    assert journal_after(body, act) == [("cancel", "wait:go", "delivered", None)]


def test_a_process_that_did_nothing_durable_has_an_empty_journal_and_an_unknown_one_none() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.emit("told", {"n": 1})

    async def ask_for_nobody(host: Host) -> None:
        with pytest.raises(UnknownProcess):
            await host.get_handle("nobody").journal()

    assert journal_after(body, ask_for_nobody) == []


def test_an_entry_of_a_type_that_is_not_known_is_passed_over_and_a_broken_one_is_named() -> None:
    newer = Event("p", 1, "step.paused", msgspec.Raw(b'{"key":"k"}'), 0)
    broken = Event("p", 2, "step.completed", msgspec.Raw(b'{"key":3}'), 0)
    assert journal_of([newer]) == ()
    with pytest.raises(DecodeError, match=r"event 2 \(step.completed\) of process 'p'"):
        journal_of([newer, broken])


def test_the_page_about_durable_functions_reads_a_journal_as_shown() -> None:
    page = (Path(__file__).parents[2] / "docs" / "durable.md").read_text("utf-8")
    shown = page.partition("## Looking at a journal")[2].partition("```python\n")[2].partition("```")[0]
    assert "run.journal()" in shown
    program: dict[str, Any] = {}
    exec("async def shown(run):\n" + textwrap.indent(shown, "    "), program)

    async def main() -> None:
        def charge(cents: int) -> str:
            return "receipt-1"

        async def body(ctx: ProcessContext) -> None:
            await ctx.step(charge, 1200)

        machine = Machine(one(body))
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await machine.ended("p")
            await program["shown"](run)

    simulate(main)
