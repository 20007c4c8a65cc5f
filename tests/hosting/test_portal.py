"""The portal: the verbs of a host as blocking calls, on a real file, with real threads."""

from __future__ import annotations

import inspect
import threading

import pytest

from perdure import Event, Host, ProcessCancelled, ProcessContext, ProcessFailed, Signal, SyncContext
from perdure.errors import InvalidPayload, RegistrationConflict, UnknownProcess
from perdure.hosting.handle import Handle
from perdure.hosting.portal import Portal, StartOptions
from perdure.hosting.sync_handle import SyncHandle
from perdure.model.queries import Filter

LONGEST_WAIT_S = 20.0

approve = Signal("approve", bool)


def test_what_is_started_returns_its_typed_result(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def double(ctx: ProcessContext, number: int) -> int:
        return 2 * number

    with host.sync as portal:
        run: SyncHandle[int] = portal.start(double, 21, id="double-21")
        result: int = run.result(LONGEST_WAIT_S)
        status = run.status()

    assert (result, status) == (42, "completed")


def test_a_plain_function_runs_beside_the_loop(host: Host) -> None:
    @host.process(recovery="rerunnable")
    def where(ctx: SyncContext) -> str:
        return threading.current_thread().name

    with host.sync as portal:
        assert portal.start(where).result(LONGEST_WAIT_S).startswith("perdure-work")


def test_many_are_started_and_listed(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def double(ctx: ProcessContext, number: int) -> int:
        return 2 * number

    with host.sync as portal:
        runs = portal.start_many(double, [1, 2, 3], ids=["one", "two", "three"])
        results = [run.result(LONGEST_WAIT_S) for run in runs]
        listed = [record.id for record in portal.list(Filter(statuses=("completed",))).records]

    assert results == [2, 4, 6]
    assert listed == ["one", "three", "two"]


def test_typed_errors_come_through(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def refuse(ctx: ProcessContext, number: int) -> int:
        raise ValueError(f"not {number}")

    with host.sync as portal:
        run = portal.start(refuse, 1, id="refused")
        with pytest.raises(ProcessFailed) as failed:
            run.result(LONGEST_WAIT_S)
        with pytest.raises(RegistrationConflict):
            portal.start(refuse, 2, id="refused")
        with pytest.raises(InvalidPayload):
            portal.start(refuse, "one")  # type: ignore[misc]  # the mistake is the test
        with pytest.raises(UnknownProcess):
            portal.get_handle("nobody").status()

    assert failed.value.outcome.error.type == "ValueError"


def test_a_timeout_gives_up_the_waiting_and_not_the_process(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> bool:
        return await ctx.wait(approve)

    with host.sync as portal:
        run = portal.start(decide, id="decide-1")
        with pytest.raises(TimeoutError, match=r"process 'decide-1' has not ended within 0\.05 s"):
            run.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            run.outcome(timeout=0.05)
        status = run.status()
        run.signal(approve, True)
        result = run.result(LONGEST_WAIT_S)

    assert status in ("running", "suspended", "waiting")
    assert result is True


def test_events_are_iterated_until_the_process_has_ended(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def count(ctx: ProcessContext) -> None:
        for number in range(3):
            await ctx.emit("counted", number, key=f"counted-{number}")

    with host.sync as portal:
        run = portal.start(count)
        followed = [event.type for event in run.events(timeout=LONGEST_WAIT_S)]
        standing = [event.sequence for event in run.events(after=2, follow=False)]

    assert followed == ["process.started", "counted", "counted", "counted", "process.completed"]
    assert standing == [3, 4, 5]


def test_events_that_do_not_come_in_time_can_be_waited_for_again(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> bool:
        await ctx.emit("asked")
        return await ctx.wait(approve)

    seen: list[Event] = []
    with host.sync as portal:
        run = portal.start(decide)
        with pytest.raises(TimeoutError, match="the wait for an event"):
            seen.extend(run.events(timeout=0.2))  # what came before the error is kept
        run.signal(approve, False)
        later = [event.type for event in run.events(after=seen[-1].sequence, timeout=LONGEST_WAIT_S)]

    assert "asked" in [event.type for event in seen]
    assert later[-1] == "process.completed"


def test_events_that_are_not_read_to_the_end_hold_nothing(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> bool:
        return await ctx.wait(approve)

    with host.sync as portal:
        events = portal.start(decide).events(timeout=LONGEST_WAIT_S)
        first = next(events)
        del events

    assert first.type == "process.started"


def test_cancelling_ends_a_process(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> bool:
        return await ctx.wait(approve)

    with host.sync as portal:
        run = portal.start(decide)
        run.cancel("no longer wanted", by="ada")
        with pytest.raises(ProcessCancelled, match="no longer wanted"):
            run.result(LONGEST_WAIT_S)


def test_work_of_others_is_registered_and_completed(host: Host) -> None:
    with host.sync as portal:
        run = portal.register_external("payment", {"cents": 1200}, id="payment-1")
        portal.complete("payment-1", "paid", owner="bank")
        result = run.result(LONGEST_WAIT_S)
        answer = portal.get_handle("payment-1").explain()

    assert result == "paid"
    assert answer.process_id == "payment-1"


def test_a_command_runs_from_the_portals_thread(host: Host) -> None:
    with host.sync as portal:
        run = portal.shell("echo one; echo two")
        assert run.result(LONGEST_WAIT_S).stdout_lines == 2


def test_the_portal_has_every_verb_of_the_host_and_its_handle(host: Host) -> None:
    def verbs(kind: type) -> set[str]:
        return {
            name
            for name, value in vars(kind).items()
            if not name.startswith("_") and (inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value))
        }

    assert verbs(Host) - {"serve"} <= set(dir(Portal))
    assert verbs(Handle) <= set(dir(SyncHandle))


def test_the_options_of_a_start_are_those_of_the_host() -> None:
    options = inspect.signature(Host.start).parameters.values()
    assert {option.name for option in options if option.kind is option.KEYWORD_ONLY} == set(
        StartOptions.__annotations__
    )
