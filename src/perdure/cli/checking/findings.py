"""What the check finds, in words: what stands there, why it is a mistake, and what to write instead."""

from __future__ import annotations

from typing import Literal

import msgspec

Rule = Literal["key", "task", "unrecorded", "swallowed", "unawaited"]


class Finding(msgspec.Struct, frozen=True, order=True):
    """One place in the code of a process. Findings sort by file, line and column."""

    file: str
    line: int
    column: int
    rule: Rule
    process: str
    what: str
    why: str
    fix: str


WHY: dict[Rule, str] = {
    "key": "it is known by its name and how often that was used; once the code is edited, a process under way may be "
    "given one's result for another's",
    "task": "what runs in a task of its own has no order that could be replayed: a durable operation is refused there",
    "unrecorded": "the code runs again on replay and gets another value: it may take another way than it took before",
    "swallowed": "cancellations and suspensions reach the code there: swallowed, a process that was asked to stop goes "
    "on, and is reported",
    "unawaited": "an operation does nothing until it is awaited",
}

RECORDED = {"now": "a time", "uuid": "a UUID", "random": "a random number"}
"""What the context gives instead, by its method."""


def key_fix(method: str) -> str:
    return f"give it a key that says what it is for: {method}(…, key=…)"


def task_why(made_by: str) -> str:
    if made_by.endswith("wait_for"):
        return "its time-out is not recorded, so a replay may come out otherwise; on Python 3.11 it is refused"
    return WHY["task"]


def task_fix(made_by: str) -> str:
    if made_by.endswith("wait_for"):
        return "use timeout= of ctx.step or ctx.wait, or ctx.race with ctx.sleep"
    return "use ctx.gather or ctx.race for operations, ctx.branches for functions"


def unrecorded_fix(method: str, *, is_blocking: bool) -> str:
    call = f"ctx.{method}()" if is_blocking else f"await ctx.{method}()"
    return f"use {call}, {RECORDED[method]} that is recorded, or make it in a step"


SWALLOWED_FIX = "catch Exception instead, or end with a bare raise"


def unawaited_fix(shown: str, *, is_operation: bool, is_blocking: bool) -> str:
    """`is_operation`: it may be given to gather and race, too; in blocking code that is all that can be done."""
    given = "give it to ctx.gather or ctx.race"
    if is_blocking:
        return given
    return f"await {shown}, or {given}" if is_operation else f"await {shown}"
