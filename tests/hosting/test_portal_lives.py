"""How a portal opens, closes and is interrupted; and what several threads and portals see of each other."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from perdure import Host, ProcessContext, Signal
from perdure.errors import StoreError, WrongHostUse
from perdure.runtime.spawner import LoopSpawner, WorkThread

LONGEST_WAIT_S = 20.0

approve = Signal("approve", bool)


def test_two_portals_on_one_file_share_their_processes(url: str) -> None:
    worker, asker = Host(url), Host(url, work=False)

    @worker.process(recovery="rerunnable")
    async def greet(ctx: ProcessContext, name: str) -> str:
        return f"hello {name}"

    asker.add(greet)

    with worker.sync, asker.sync as portal:
        assert portal.start(greet, "Ada").result(LONGEST_WAIT_S) == "hello Ada"


def test_a_host_is_opened_by_one_portal_at_a_time_and_again_after_it(host: Host) -> None:
    with host.sync as first:
        with pytest.raises(WrongHostUse, match="open already"), host.sync:
            pass
        with pytest.raises(WrongHostUse, match="open already"):
            first.open()
        assert first.list().records == ()

    with first:
        assert first.list().records == ()
    with host.sync as second:
        assert second.list().records == ()


def test_many_threads_use_one_portal(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def double(ctx: ProcessContext, number: int) -> int:
        return 2 * number

    with host.sync as portal, ThreadPoolExecutor(16) as threads:

        def ask(number: int) -> int:
            return portal.start(double, number).result(LONGEST_WAIT_S)

        results = list(threads.map(ask, range(100)))

    assert results == [2 * number for number in range(100)]


def test_an_interrupt_in_the_block_still_drains(host: Host) -> None:
    cleaned_up = threading.Event()

    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> None:
        try:
            await ctx.emit("began", key="began")
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    def work() -> None:
        with host.sync as portal:
            run = portal.start(decide, id="interrupted")
            next(event for event in run.events(timeout=LONGEST_WAIT_S) if event.type == "began")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()

    assert cleaned_up.is_set()
    with host.sync as portal:  # drained: given back, and begun again by whoever comes next
        run = portal.get_handle("interrupted")
        next(event for event in run.events(after=2, timeout=LONGEST_WAIT_S) if event.type == "process.started")
        run.cancel()


def test_closing_tells_how_the_work_was_drained_and_may_be_repeated(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> None:
        await asyncio.Event().wait()

    portal = host.sync.open()
    portal.start(decide, id="drained-1")

    assert [drained.process_id for drained in portal.close()] == ["drained-1"]
    assert portal.close() == ()


def test_a_call_that_waits_while_the_portal_closes_is_told_so(host: Host) -> None:
    @host.process(recovery="rerunnable")
    async def decide(ctx: ProcessContext) -> bool:
        return await ctx.wait(approve)

    waiting = threading.Event()
    told: Future[Exception | None] = Future()
    portal = host.sync.open()
    run = portal.start(decide)

    def wait() -> None:
        waiting.set()
        try:
            run.result()
        except Exception as error:
            told.set_result(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiting.wait(LONGEST_WAIT_S)
    portal.close()
    waiter.join(LONGEST_WAIT_S)

    assert isinstance(told.result(LONGEST_WAIT_S), WrongHostUse | StoreError)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # that is what is tried here
def test_a_portal_opened_before_a_fork_refuses_calls_after_it(host: Host) -> None:
    with host.sync as portal:
        child = os.fork()
        if child == 0:
            try:
                portal.list()
            except WrongHostUse as error:
                os._exit(7 if portal.close() == () and "fork" in str(error) else 1)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        still_works = portal.list().records

    assert os.waitstatus_to_exitcode(status) == 7
    assert still_works == ()


def test_a_portal_that_is_not_open_says_how_to_open_it(host: Host) -> None:
    portal = host.sync
    for use in (portal.list, lambda: portal.get_handle("p")):
        with pytest.raises(WrongHostUse, match=r"with host\.sync as portal"):
            use()


def test_a_blocking_call_on_the_portals_own_loop_is_refused(host: Host) -> None:
    portal = host.sync

    @host.process(recovery="rerunnable")
    async def ask(ctx: ProcessContext) -> str:
        for use in (portal.list, portal.close):
            with pytest.raises(WrongHostUse, match="await the Host's verbs"):
                use()
        return "refused"

    with portal:
        assert portal.start(ask).result(LONGEST_WAIT_S) == "refused"


def test_a_host_that_cannot_be_opened_raises_its_error_and_leaves_nothing(tmp_path: Path) -> None:
    Path(tmp_path, "work.db").write_bytes(b"this is no database" * 1_000)
    host = Host(f"sqlite:///{tmp_path / 'work.db'}")

    with pytest.raises(StoreError), host.sync:
        pass


def test_a_portal_where_there_are_no_threads_is_refused(url: str) -> None:
    class NoThreads(LoopSpawner):
        def start_thread(self, work: object, name: str) -> WorkThread | None:
            return None

    with pytest.raises(WrongHostUse, match="needs a thread"):
        Host(url, spawner=NoThreads()).sync.open()


def test_an_interrupt_while_it_opens_leaves_it_closed(url: str) -> None:
    class Interrupting(LoopSpawner):
        """Its caller is interrupted while it waits for the thread, which begins only when it is told to end."""

        def start_thread(self, work: Callable[[], None], name: str) -> WorkThread | None:
            def interrupt() -> None:
                until(lambda: portal._thread is not None)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                until(lambda: portal._closing)
                work()

            return super().start_thread(interrupt, name)

    portal = Host(url, spawner=Interrupting()).sync

    with pytest.raises(KeyboardInterrupt):
        portal.open()

    assert portal.close() == ()


def until(fact: Callable[[], bool]) -> None:
    given_up_at = time.monotonic() + LONGEST_WAIT_S
    while not fact():
        assert time.monotonic() < given_up_at
        time.sleep(0.001)
