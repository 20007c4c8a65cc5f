"""The named verbs: one per command, thin, and typed."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from perdure.contract import verbs
from perdure.errors import InvalidPayload, LeaseSuperseded, NotPermitted, RegistrationConflict
from perdure.model.leases import Owner
from perdure.model.outcomes import Cancelled, ErrorDetail
from perdure.model.registration import Definition, Registration, RetryPolicy
from perdure.model.waits import ChildWait, SignalWait
from perdure.stores.memory import MemoryRegistry
from perdure.testing.clock import VirtualClock
from perdure.transitions import commands
from perdure.transitions.commands import ExternalOwner, LeaseRight, RowCommand, WorkflowKey

WORK = Definition("example", "work")
OWNER = Owner("worker-1", "incarnation-1")


def registration(process_id: str = "p-1") -> Registration:
    return Registration(
        id=process_id, definition=WORK, recovery="rerunnable", retry=RetryPolicy(),
        signals={"go": verbs.as_raw(True)},
    )  # fmt: skip


async def claimed(registry: MemoryRegistry) -> LeaseRight:
    await verbs.register(registry, registration())
    receipt = await verbs.claim_next(registry, OWNER, claim_id="c-1", token="t-1", definitions=(WORK,))
    return LeaseRight(receipt.claimed[0].lease.key)


def test_every_command_has_its_verb() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(commands, inspect.isclass)
        if (issubclass(kind, RowCommand) and kind is not RowCommand) or kind in get_args(commands.SetCommand)
    ]
    expected = {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in kinds}
    assert len(expected) > 15
    assert expected <= {name for name, _ in inspect.getmembers(verbs, inspect.iscoroutinefunction)}


def test_a_registration_is_idempotent_and_a_changed_one_conflicts() -> None:
    async def story() -> list[str]:
        registry = MemoryRegistry(VirtualClock())
        answers = [(await verbs.register(registry, registration())).answer for _ in range(2)]
        other = Registration(id="p-1", definition=WORK, recovery="owner_bound")
        with pytest.raises(RegistrationConflict):
            await verbs.register(registry, other)
        return list(answers)

    assert asyncio.run(story()) == ["applied", "unchanged"]


def test_an_event_is_appended_in_canonical_form_and_found_again_by_its_key() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        right = await claimed(registry)

        first = await verbs.append_event(registry, "p-1", "note", {"b": 1, "a": 2}, replay_key="k", execution=right)
        again = await verbs.append_event(registry, "p-1", "note", {"a": 2, "b": 1}, replay_key="k", execution=right)

        assert bytes(first.payload) == b'{"a":2,"b":1}'
        assert again == first

    asyncio.run(story())


def test_a_payload_that_cannot_be_stored_is_refused_with_its_path() -> None:
    async def story() -> None:
        with pytest.raises(InvalidPayload) as refused:
            await verbs.append_event(MemoryRegistry(VirtualClock()), "p-1", "note", {"a": [float("nan")]})
        assert refused.value.path == "$.a[0]"

    asyncio.run(story())


def test_a_suspended_process_is_resumed_after_its_signal_and_ends_once() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        right = await claimed(registry)

        parked = await verbs.suspend(registry, right, (SignalWait("go", 1),))
        sent = await verbs.signal(registry, "p-1", "go", {"n": 1}, signal_id="s-1")
        resumed = await verbs.claim_next(registry, OWNER, claim_id="c-2", token="t-2", definitions=(WORK,))
        right_now = LeaseRight(resumed.claimed[0].lease.key)
        renewed = await verbs.renew(registry, (right_now.key,), 15_000)
        ended = await verbs.complete(registry, "p-1", verbs.completed("done"), right_now)
        once_more = await verbs.complete(registry, "p-1", Cancelled("late"), right_now)

        assert parked.record.status == "waiting"
        assert sent.type == "signal.go"
        assert renewed.renewals[0].held
        assert (ended.answer, once_more.answer) == ("applied", "superseded")
        assert once_more.record.outcome == verbs.completed("done")
        with pytest.raises(LeaseSuperseded):
            await verbs.complete(registry, "p-1", Cancelled("stale"), right)

    asyncio.run(story())


def test_a_failure_is_scheduled_again_and_a_cancel_then_ends_it_at_once() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        right = await claimed(registry)

        retried = await verbs.schedule_retry(registry, right, ErrorDetail("ValueError"), due_at_ms=10**13)
        cancelled = await verbs.request_cancel(registry, "p-1", "not needed", by="ada")

        assert (retried.record.status, retried.record.state.failures) == ("pending", 1)
        assert cancelled.record.outcome == Cancelled("not needed", "ada")

    asyncio.run(story())


def test_a_released_row_can_be_given_up_and_its_end_settled() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        right = await claimed(registry)

        await verbs.release(registry, right.key)
        given_up = await verbs.request_abandon(registry, "p-1", by="ada", reason="no longer wanted")
        settled = await verbs.settle(registry, "p-1", given_up.record.state.last_sequence)

        assert given_up.record.status == "abandoned"
        assert settled.answer == "unchanged"

    asyncio.run(story())


def test_an_admitted_row_is_started_and_completed_by_its_engine() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        await verbs.register(registry, registration())
        key = WorkflowKey("p-1", "key-1", "invocation-1")

        await verbs.admit(registry, "p-1", "key-1")
        started = await verbs.start(registry, key, Owner("engine", "invocation-1"))
        await verbs.set_external_ref(registry, "p-1", "engine://invocation-1")
        ended = await verbs.complete(registry, "p-1", verbs.completed(1), key)

        assert started.record.status == "running"
        assert ended.record.state.external_ref == "engine://invocation-1"
        assert ended.record.status == "completed"

    asyncio.run(story())


def test_an_externally_owned_process_outlives_its_caller_and_is_completed_by_its_owner() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        external = Registration(id="p-1", definition=Definition("external", "job"), recovery="externally_owned")
        await verbs.register(registry, external)

        departed = await verbs.record_caller_departure(registry, "p-1", "its program ended")
        ended = await verbs.complete(registry, "p-1", verbs.completed(), ExternalOwner("cron"))

        assert departed.record.status == "caller_departed"
        assert ended.record.status == "completed"

    asyncio.run(story())


def test_a_parked_parent_is_woken_by_the_end_of_its_child() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        child = ChildWait("p-2")
        await verbs.suspend(registry, await claimed(registry), (child,))

        woken = await verbs.wake(registry, "p-1", child, "child completed")
        again = await verbs.claim_next(registry, OWNER, claim_id="c-2", token="t-2", definitions=(WORK,))

        assert woken.events[0].type == "process.woken"
        assert [c.record.id for c in again.claimed] == ["p-1"]

    asyncio.run(story())


def test_a_settling_pass_ends_a_row_only_for_a_reason_that_the_record_bears_out() -> None:
    async def story() -> None:
        clock = VirtualClock()
        registry = MemoryRegistry(clock)
        await verbs.register(registry, msgspec.structs.replace(registration(), deadline_ms=1_000))

        with pytest.raises(NotPermitted):
            await verbs.claim_to_settle(registry, "p-1", "deadline", OWNER)
        clock.advance(1)
        ended = await verbs.claim_to_settle(registry, "p-1", "deadline", OWNER)

        assert ended.record.status == "failed"

    asyncio.run(story())


def test_an_operation_that_was_done_is_answered_again_with_the_same_events() -> None:
    async def story() -> None:
        registry = MemoryRegistry(VirtualClock())
        await verbs.register(registry, registration())

        first = await verbs.append_event(registry, "p-1", "note", 1, operation_id="op-1")
        again = await verbs.append_event(registry, "p-1", "note", 1, operation_id="op-1")

        assert again == first
        assert (await registry.get("p-1")).state.last_sequence == 1

    asyncio.run(story())


def test_no_rule_is_in_the_verbs() -> None:
    source = Path(inspect.getsourcefile(verbs) or "").read_text("utf-8")
    assert not re.search(r"^\s+(if|for|while|match|try)\b", source, re.MULTILINE)
