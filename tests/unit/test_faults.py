from __future__ import annotations

import asyncio

import pytest

from perdure.errors import OutcomeUnknown, StoreUnavailable, UnknownProcess
from perdure.testing.conformance.kit import Kit, registration
from perdure.testing.faults import (
    CancelAfter,
    CancelBefore,
    Delay,
    DelayAnswer,
    FailAfter,
    FailBefore,
    Fault,
    FaultyRegistry,
    from_tape,
    script,
)
from perdure.testing.tape import Tape
from perdure.transitions.commands import Register, Renew
from tests.runtime.simulated import simulate

REGISTER = Register(process_id="p", registration=registration("p"))


def spoilt(kit: Kit, verb: str, fault: Fault, number: int = 1) -> FaultyRegistry:
    return FaultyRegistry(kit.registry, script({(verb, number): fault}), kit.clock)


def test_a_call_that_fails_before_it_is_sent_has_written_nothing() -> None:
    async def story(kit: Kit) -> None:
        with pytest.raises(StoreUnavailable):
            await spoilt(kit, "Register", FailBefore()).execute(REGISTER)
        assert await kit.registry.count() == 0

    simulate(story)


def test_a_call_whose_answer_is_lost_was_done() -> None:
    async def story(kit: Kit) -> None:
        store = spoilt(kit, "Register+Register", FailAfter())
        with pytest.raises(OutcomeUnknown):
            await store.execute_together((REGISTER, REGISTER))
        assert await kit.registry.count() == 1
        assert store.hits == {("Register+Register", "FailAfter"): 1}

    simulate(story)


def test_a_read_has_no_unknown_outcome() -> None:
    async def story(kit: Kit) -> None:
        with pytest.raises(StoreUnavailable):
            await spoilt(kit, "count", FailAfter()).count()

    simulate(story)


def test_a_delay_comes_before_the_call_or_before_its_answer() -> None:
    async def story(kit: Kit) -> None:
        for fault, count_meanwhile in ((Delay(2), 0), (DelayAnswer(2), 1)):
            began_ms, before = kit.now_ms, await kit.registry.count()
            command = Register(process_id=f"p-{before}", registration=registration(f"p-{before}"))
            call = asyncio.ensure_future(spoilt(kit, "Register", fault).execute(command))
            await kit.clock.sleep(1)
            assert await kit.registry.count() - before == count_meanwhile
            await call
            assert kit.now_ms - began_ms == 2_000
            assert await kit.registry.count() - before == 1

    simulate(story)


def test_a_caller_is_cancelled_before_its_call_is_sent_or_after_it_was_done() -> None:
    async def story(kit: Kit) -> None:
        for fault, count in ((CancelBefore(), 0), (CancelAfter(), 1)):
            call = asyncio.ensure_future(spoilt(kit, "Register", fault).execute(REGISTER))
            await asyncio.wait({call})
            assert call.cancelled()
            assert await kit.registry.count() == count

    simulate(story)


def test_a_renewal_from_a_thread_fails_is_lost_or_comes_late() -> None:
    async def story(kit: Kit) -> None:
        claimed = await kit.start("p")
        renew = Renew(keys=(claimed.lease.key,), ttl_ms=60_000)
        assert isinstance(spoilt(kit, "Renew", FailBefore()).renew_from_thread(renew).exception(0), StoreUnavailable)
        assert (await kit.lease("p")).expires_at_ms == claimed.lease.expires_at_ms
        assert isinstance(spoilt(kit, "Renew", FailAfter()).renew_from_thread(renew).exception(0), OutcomeUnknown)
        assert (await kit.lease("p")).expires_at_ms == kit.now_ms + 60_000
        late = spoilt(kit, "Renew", Delay(5)).renew_from_thread(renew)
        await kit.clock.sleep(4)
        assert not late.done()
        await kit.clock.sleep(2)
        assert [renewal.held for renewal in late.result(0).renewals] == [True]

    simulate(story)


def test_calls_are_counted_by_verb_and_refusals_pass_as_they_are() -> None:
    async def story(kit: Kit) -> None:
        store = spoilt(kit, "get", FailBefore(), number=2)
        await store.execute(REGISTER)
        await store.get("p")
        with pytest.raises(StoreUnavailable):
            await store.get("p")
        with pytest.raises(UnknownProcess):
            await store.get("nobody")
        assert store.calls == {"Register": 1, "get": 3}

    simulate(story)


def test_a_tape_decides_the_same_faults_again_and_none_where_it_is_dull() -> None:
    faults = (FailBefore(), FailAfter(), Delay(1))
    tape = Tape(7)
    plan = from_tape(tape, faults, one_in=4)
    drawn = [plan("Complete", number) for number in range(400)]
    again = from_tape(Tape.replay(tape.picks), faults, one_in=4)
    assert [again("Complete", number) for number in range(400)] == drawn
    assert 60 < sum(fault is not None for fault in drawn) < 140
    assert set(drawn) == {None, *faults}
    dull = from_tape(Tape.replay([]), faults, one_in=4)
    assert {dull("Complete", number) for number in range(400)} == {None}
    assert from_tape(Tape(7), faults, one_in=1, verbs=("Renew",))("Complete", 1) is None
