"""The holder lab names what it breaks, and nothing else."""

from __future__ import annotations

import asyncio

import msgspec

from lab.holder import Share, breaches_of, saturate, share_of

QUIET = share_of([float(n) for n in range(1, 101)], seconds=10.0, steps=50, renewals=3)


def test_a_share_counts_and_ranks_what_was_taken() -> None:
    share = QUIET
    assert share == Share(100, 10.0, 51.0, 100.0, 100.0, 50, 3)


def test_an_equal_share_with_the_holder_is_no_breach() -> None:
    assert breaches_of(QUIET, QUIET) == []


def test_each_breach_is_named() -> None:
    slow = msgspec.structs.replace(QUIET, p99_ms=301.0)
    stuck = msgspec.structs.replace(QUIET, target_steps=0, target_renewals=0)
    assert breaches_of(QUIET, slow) == ["p99 of others was 301.0 ms with the holder, 100.0 ms beside one that idles"]
    assert breaches_of(QUIET, stuck) == [
        "no step of the target was committed while the transaction was held",
        "the target's lease was not renewed while the transaction was held",
    ]


def test_others_that_wait_for_the_transaction_are_given_up_and_named() -> None:
    async def at_once() -> None:
        await asyncio.sleep(0)

    async def never() -> None:
        await asyncio.Event().wait()

    async def load() -> tuple[list[float], int]:
        async with asyncio.timeout(20):
            return await saturate([at_once, never, never], seconds=0.05, answered_within_s=0.05)

    took_ms, unanswered = asyncio.run(load())
    assert took_ms
    assert unanswered == 2
    assert breaches_of(QUIET, share_of([1.0], 10.0, steps=50, renewals=3, unanswered=2)) == [
        "2 others had no answer within 20 s while the transaction was held"
    ]


def test_that_nobody_else_completed_anything_is_a_breach() -> None:
    nothing = share_of([], seconds=10.0, steps=50, renewals=3)
    assert nothing == Share(0, 0.0, 0.0, 0.0, 0.0, 50, 3)
    assert breaches_of(QUIET, nothing) == ["nobody else completed anything while the transaction was held"]
