from __future__ import annotations

import asyncio
import logging
import threading

import pytest

import perdure.runtime.watch as watch_module
from perdure.contract.ports import WorkerFault
from perdure.model.events import Event
from perdure.model.registration import NULL
from perdure.runtime.spawner import LoopSpawner, TaskOnlySpawner
from perdure.runtime.watch import SinkPump
from perdure.testing.conformance.world import Sink, loop_turns
from perdure.testing.loop import run_simulation

FAULT = WorkerFault("infrastructure", "a fault")


def event(sequence: int, process_id: str = "p", type: str = "note") -> Event:
    return Event(process_id, sequence, type, NULL, 0)


def test_events_come_one_after_the_other_in_commit_order_across_processes() -> None:
    async def story() -> None:
        sink = Sink()
        pump = SinkPump(sink, TaskOnlySpawner())
        pump.offer([event(1, "a"), event(1, "b")])
        pump.offer([event(2, "b"), event(2, "a")])
        await loop_turns()
        assert [(e.process_id, e.sequence) for e in sink.events] == [("a", 1), ("b", 1), ("b", 2), ("a", 2)]

    run_simulation(story)


def test_an_event_that_was_sent_is_not_sent_again() -> None:
    async def story() -> None:
        sink = Sink()
        pump = SinkPump(sink, TaskOnlySpawner())
        pump.offer([event(1), event(2)])
        pump.offer([event(1), event(3)])
        await loop_turns()
        assert [e.sequence for e in sink.events] == [1, 2, 3]

    run_simulation(story)


def test_a_sink_that_falls_too_far_behind_loses_the_oldest_events_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_module, "SINK_BACKLOG", 3)

    async def story() -> None:
        sink = Sink()
        pump = SinkPump(sink, TaskOnlySpawner())
        with caplog.at_level(logging.ERROR, "perdure"):
            pump.offer([event(number) for number in range(1, 6)])
        await loop_turns()
        assert [e.sequence for e in sink.events] == [3, 4, 5]

    run_simulation(story)
    assert "oldest was dropped" in caplog.text


def test_a_fault_goes_to_a_sink_whose_report_is_a_coroutine_and_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        heard: list[WorkerFault] = []

        class Waits(Sink):
            async def report(self, fault: WorkerFault) -> None:  # type: ignore[override]  # either form is taken
                await loop_turns(1)
                heard.append(fault)

        SinkPump(Waits(), TaskOnlySpawner()).report(FAULT)
        await loop_turns()
        assert heard == [FAULT]

    run_simulation(story)
    assert "a fault" in caplog.text


def test_a_sink_that_takes_no_faults_leaves_them_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class EventsOnly:
        async def emit(self, event: Event) -> None:
            raise AssertionError("a fault is no event")

    async def story() -> None:
        SinkPump(EventsOnly(), TaskOnlySpawner()).report(FAULT)
        await loop_turns()

    run_simulation(story)
    assert "a fault" in caplog.text


def test_flushing_gives_the_sink_its_time_and_no_more() -> None:
    async def story() -> None:
        loop, never = asyncio.get_running_loop(), asyncio.Event()

        class Hangs(Sink):
            async def emit(self, event: Event) -> None:
                await never.wait()

        pump = SinkPump(Hangs(), TaskOnlySpawner(), bound_s=60)
        pump.offer([event(1)])
        await pump.flush(2.0)
        assert loop.time() == 2.0
        pump.stop()

    run_simulation(story)


def test_the_fault_of_a_blocked_loop_is_reported_from_the_keepers_thread_without_harm() -> None:
    """The keeper asks the loop to report; what a host gives it must stand being asked from there."""

    async def story() -> None:
        loop, sink = asyncio.get_running_loop(), Sink()
        pump = SinkPump(sink, LoopSpawner())
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(pump.report, FAULT))
        thread.start()
        while not sink.faults:
            await loop_turns()
        thread.join()
        assert sink.faults == [FAULT]

    asyncio.run(story())
