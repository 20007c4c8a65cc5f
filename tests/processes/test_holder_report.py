"""The holder lab names what it breaks, and nothing else."""

from __future__ import annotations

import msgspec

from lab.holder import Share, breaches_of, share_of

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
