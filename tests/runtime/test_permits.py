from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from perdure.runtime.permits import HeldPermit, Permits, enter_process, giving_back_permit
from perdure.testing.conformance.world import loop_turns
from perdure.testing.loop import run_simulation


def run(story: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        await story

    run_simulation(main)


def test_a_permit_is_free_from_the_first_wait_that_begins_to_the_last_that_ends() -> None:
    async def story() -> None:
        permits = Permits(1, lambda: None)
        permits.take(1)
        held = HeldPermit(permits)
        async with held.given_back():
            assert permits.free == 1
            async with held.given_back():
                assert permits.free == 1
            assert permits.free == 1
        assert permits.free == 0

    run(story())


def test_whoever_comes_back_from_a_wait_goes_before_new_work() -> None:
    async def story() -> None:
        told: list[int] = []
        permits = Permits(1, lambda: told.append(permits.free))
        permits.take(1)
        held = HeldPermit(permits)
        held.begin_wait()
        permits.take(1)  # new work took it meanwhile
        back = asyncio.ensure_future(held.end_wait())
        await loop_turns()
        assert (back.done(), permits.free) == (False, 0)
        permits.give_back()
        await back
        assert (permits.held, permits.free) == (1, 0)
        assert told == [1]  # of the first wait only: what came free then was not offered to new work

    run(story())


def test_a_wait_that_is_cancelled_while_it_comes_back_holds_a_permit_all_the_same() -> None:
    async def story() -> None:
        permits = Permits(1, lambda: None)
        permits.take(1)
        held = HeldPermit(permits)
        held.begin_wait()
        permits.take(1)
        back = asyncio.ensure_future(held.end_wait())
        await loop_turns()
        back.cancel()
        await loop_turns()
        assert not back.done()
        permits.give_back()
        await asyncio.wait({back})
        assert back.cancelled()
        assert permits.held == 1
        held.release()
        assert permits.held == 0

    run(story())


def test_a_permit_released_during_a_wait_is_given_back_once() -> None:
    async def story() -> None:
        permits = Permits(2, lambda: None)
        permits.take(2)
        held = HeldPermit(permits)
        async with held.given_back():
            held.release()
            held.release()
        held.release()
        assert permits.held == 1

    run(story())


def test_a_permit_released_while_its_process_comes_back_is_not_kept() -> None:
    async def story() -> None:
        permits = Permits(1, lambda: None)
        permits.take(1)
        held = HeldPermit(permits)
        held.begin_wait()
        permits.take(1)
        back = asyncio.ensure_future(held.end_wait())
        await loop_turns()
        held.release()
        permits.give_back()
        await back
        assert permits.held == 0

    run(story())


def test_a_wait_outside_of_a_process_touches_no_permit() -> None:
    async def story() -> None:
        async with giving_back_permit():
            pass

    run(story())


def test_a_wait_inside_of_another_wait_of_the_same_process_gives_nothing_back_twice() -> None:
    async def story() -> None:
        permits = Permits(1, lambda: None)
        permits.take(1)
        enter_process(HeldPermit(permits))
        async with giving_back_permit():
            async with giving_back_permit():
                assert permits.held == 0
            assert permits.held == 0
        assert permits.held == 1

    run(story())
