"""The simulator's loop: virtual time, asyncio's own tools, what can't go on, and crashed hosts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure.testing.loop import (
    NotSimulated,
    SimulationDeadlock,
    SimulationLivelock,
    SimulationLoop,
    run_simulation,
)


def simulation() -> SimulationLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    return loop


# --- time ------------------------------------------------------------------------------------------------------


def test_thirty_six_hours_pass_without_waiting() -> None:
    async def main() -> float:
        for _ in range(36 * 60):
            await asyncio.sleep(60)
        return simulation().time()

    assert run_simulation(main) == 129_600.0


def test_a_timeout_fires_at_its_exact_virtual_instant() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.25):
                await asyncio.sleep(3600)
        return simulation().time()

    assert run_simulation(main) == 30.25


def test_timers_fire_in_the_order_of_their_instants() -> None:
    async def main() -> list[str]:
        fired: list[str] = []

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            fired.append(f"{name}@{simulation().time()}")

        await asyncio.gather(wait("c", 3), wait("a", 1), wait("b", 2))
        return fired

    assert run_simulation(main) == ["a@1.0", "b@2.0", "c@3.0"]


def test_a_cancelled_timer_does_not_hold_time_back() -> None:
    async def main() -> float:
        simulation().call_later(5000, lambda: None).cancel()
        async with asyncio.timeout(100):
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        return simulation().time()

    assert run_simulation(main) == 2.0


# --- asyncio's own tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
def test_groups_locks_queues_events_and_shields_work(shuffle: bool) -> None:
    async def main() -> tuple[list[int], int, str]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        lock, opened, taken, inside = asyncio.Lock(), asyncio.Event(), [], []

        async def put() -> None:
            await opened.wait()
            for number in range(5):
                await queue.put(number)

        async def take() -> None:
            taken.extend([await queue.get() for _ in range(5)])

        async def hold() -> None:
            async with lock:
                inside.append(1)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.pop()

        async with asyncio.TaskGroup() as group:
            for work in (put(), take(), hold(), hold()):
                group.create_task(work)
            opened.set()

        shielded = asyncio.ensure_future(asyncio.sleep(10, "kept"))
        outer = asyncio.ensure_future(asyncio.wait_for(asyncio.shield(shielded), timeout=1))
        done, waiting = await asyncio.wait({outer})
        assert isinstance(outer.exception(), TimeoutError)
        return taken, len(done) - len(waiting), await shielded

    assert run_simulation(main, shuffle=shuffle, seed=3) == ([0, 1, 2, 3, 4], 1, "kept")


def test_a_failing_group_cancels_its_other_tasks() -> None:
    cancelled_at: list[float] = []

    async def sibling() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            cancelled_at.append(simulation().time())

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("planted")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        run_simulation(main)
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert cancelled_at == [1.0]


# --- what can't go on ------------------------------------------------------------------------------------------


def test_a_deadlock_names_the_waiting_tasks_and_their_lines() -> None:
    async def wait_for_ever(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever(asyncio.Event()), name="stuck")
            await asyncio.sleep(5)

    with pytest.raises(SimulationDeadlock, match=r"deadlock at 5\.0 s") as caught:
        run_simulation(main)
    (stuck,) = [line for line in caught.value.pending if line.startswith("stuck at ")]
    assert "wait_for_ever (test_simulation_loop.py:" in stuck
    assert "Event.wait (locks.py:" in stuck


def test_a_loop_that_never_waits_is_a_livelock() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  (the fault this test is about)
            await asyncio.sleep(0)

    with pytest.raises(SimulationLivelock) as caught:
        run_simulation(main, max_steps=500)
    assert caught.value.max_steps == 500
    assert caught.value.pending[0].startswith("task-1 at ")


def test_what_still_runs_after_main_is_cancelled_and_awaited() -> None:
    cleaned: list[float] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(2)
            cleaned.append(simulation().time())

    async def main() -> None:
        task = asyncio.ensure_future(background())
        await asyncio.sleep(1)
        assert not task.done()

    run_simulation(main)
    assert cleaned == [3.0]


def test_threads_sockets_and_child_processes_are_refused() -> None:
    async def main() -> list[str]:
        refused: list[str] = []
        attempts: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: asyncio.to_thread(print),
            lambda: asyncio.open_connection("localhost", 1),
            lambda: asyncio.create_subprocess_exec("true"),
        ]
        for attempt in attempts:
            try:
                await attempt()
            except NotSimulated as refusal:
                refused.append(refusal.asked)
        return refused

    assert run_simulation(main) == ["run_in_executor", "create_connection", "subprocess_exec"]


def test_only_the_loops_own_thread_may_schedule() -> None:
    refusals: list[str] = []

    async def main() -> bool:
        loop, called = simulation(), asyncio.Event()

        def from_elsewhere() -> None:
            try:
                loop.call_soon_threadsafe(called.set)
            except NotSimulated as refusal:
                refusals.append(refusal.asked)

        thread = threading.Thread(target=from_elsewhere)
        thread.start()
        thread.join()
        assert not called.is_set()
        loop.call_soon_threadsafe(called.set)
        return await called.wait()

    assert run_simulation(main)
    assert refusals == ["call_soon_threadsafe from another thread"]


# --- a crashed host --------------------------------------------------------------------------------------------


def test_a_killed_host_runs_no_finally_even_after_the_simulation() -> None:
    log: list[str] = []

    async def body(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1)
                log.append(f"{name}@{simulation().time()}")
        finally:
            log.append(f"finally {name}")

    async def host() -> None:
        try:
            async with asyncio.TaskGroup() as group, asyncio.timeout(50):
                group.create_task(body("a"))
                group.create_task(body("b"))
                await asyncio.sleep(100)
        finally:
            log.append("finally host")

    async def main() -> None:
        running = asyncio.ensure_future(host())
        await asyncio.sleep(2.5)
        simulation().kill(simulation().family(running))
        running.cancel()
        await asyncio.sleep(1000)

    run_simulation(main)
    assert log == ["a@1.0", "b@1.0", "a@2.0", "b@2.0"]


def test_killing_a_task_leaves_what_it_waited_for_alone() -> None:
    async def main() -> str:
        survivor = asyncio.ensure_future(asyncio.sleep(10, "alive"))

        async def waiter() -> None:
            async with asyncio.timeout(1):
                await survivor

        doomed = asyncio.ensure_future(waiter())
        await asyncio.sleep(0)
        simulation().kill([doomed])
        return await survivor

    assert run_simulation(main) == "alive"


# --- order of sets ---------------------------------------------------------------------------------------------


def test_a_set_of_tasks_iterates_in_the_same_order_in_every_interpreter() -> None:
    program = textwrap.dedent("""
        import asyncio
        from perdure.testing.loop import run_simulation

        async def main():
            ballast = [bytearray(id(object()) % 4096) for _ in range(id(object()) // 64 % 50)]
            tasks = {asyncio.ensure_future(asyncio.sleep(9)) for _ in range(40)}
            futures = {asyncio.get_running_loop().create_future() for _ in range(40)}
            print([task.get_name() for task in tasks], [hash(future) for future in futures])

        run_simulation(main)
    """)
    orders = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    }
    assert len(orders) == 1
