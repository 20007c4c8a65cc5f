"""Live output and progress for callers without async."""

from __future__ import annotations

import time

import pytest

from perdure import Host, Signal, SyncContext
from perdure.errors import UnknownProcess

LONGEST_WAIT_S = 20.0

go = Signal("go", int)


def test_live_output_and_progress_are_followed_to_the_end(host: Host) -> None:
    @host.process(recovery="rerunnable")
    def count(ctx: SyncContext, to: int) -> int:
        def each() -> int:
            for number in range(to):
                ctx.publish("numbers", number)
                ctx.progress(number + 1, to, f"number {number}")
                time.sleep(0.001)
            return to

        return ctx.step(each)

    with host.sync as portal:
        run = portal.start(count, 100)
        chunks = list(run.follow("numbers", timeout=LONGEST_WAIT_S))
        progress = run.progress()
        followed = list(run.follow_progress(timeout=LONGEST_WAIT_S))

    assert [(chunk.value, chunk.step, chunk.missed) for chunk in chunks] == [(n, "each", 0) for n in range(100)]
    assert progress is not None
    assert (progress.done, progress.total, progress.note) == (100, 100, "number 99")
    assert followed == [progress]


def test_a_timeout_gives_up_the_following_and_not_the_process(host: Host) -> None:
    @host.process(recovery="rerunnable")
    def wait(ctx: SyncContext) -> int:
        ctx.publish("lines", "waiting")
        return ctx.wait(go)

    with host.sync as portal:
        run = portal.start(wait)
        chunks = run.follow(timeout=0.2)
        assert next(chunks).value == "waiting"
        with pytest.raises(TimeoutError, match="a chunk"):
            next(chunks)
        with pytest.raises(TimeoutError, match="progress"):
            next(run.follow_progress(timeout=0.05))
        run.signal(go, 3)
        assert run.result(LONGEST_WAIT_S) == 3


def test_what_is_not_there_is_refused(host: Host) -> None:
    with host.sync as portal:
        with pytest.raises(UnknownProcess):
            portal.get_handle("nobody").progress()
        with pytest.raises(UnknownProcess):
            list(portal.get_handle("nobody").follow(timeout=LONGEST_WAIT_S))
