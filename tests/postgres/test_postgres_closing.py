"""Closing: what was accepted is finished, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import wait as wait_in_thread
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import StoreClosed
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.transitions.commands import Receipt, Renew, RowCommand
from tests.postgres.worlds import append, register, run, until, waiting, world


def test_a_lent_transaction_is_finished_and_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            registry = await w.peer()
            await registry.execute(register("p"))
            heard: list[Any] = []
            registry.observe(heard.extend)
            entered, go_on = asyncio.Event(), asyncio.Event()

            async def slow(connection: Any) -> RowCommand:
                entered.set()
                await go_on.wait()
                await connection.execute(f'CREATE TABLE "{w.schema}".mine (n int)')
                return append("p")

            asked = asyncio.ensure_future(registry.execute_within(slow))
            await entered.wait()
            closing = asyncio.ensure_future(registry.close())
            await asyncio.sleep(0)
            with pytest.raises(StoreClosed):
                await registry.execute_within(slow)
            assert not closing.done()
            go_on.set()
            receipt: Receipt = await asked
            await closing
            assert [event.type for event in receipt.events] == ["note"]
            assert heard == [receipt]
            assert await w.fetchval("SELECT count(*) FROM {s}.mine") == 0
            assert [event.type for event in (await w.registry.events_after("p", 0)).events] == ["note"]

    run(test())


def test_commands_that_were_asked_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            registry = await w.peer()
            await w.register("held")
            async with w.holding("held"):
                asked = [asyncio.ensure_future(registry.execute(register(f"p{n}"))) for n in range(50)]
                asked.append(asyncio.ensure_future(registry.execute(append("held"))))
                await until(lambda: waiting(w), "one of them waits for its row")
                closing = [asyncio.ensure_future(registry.close()) for _ in range(2)]
                await asyncio.wait(asked[:-1])
            answers = await asyncio.gather(*asked)
            await asyncio.gather(*closing)
            assert [answer.answer for answer in answers] == ["applied"] * 51

    run(test())


def test_a_closing_that_is_given_up_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            registry = await w.peer()
            await w.register("held")
            async with w.holding("held"):
                asked = asyncio.ensure_future(registry.execute(append("held")))
                await until(lambda: waiting(w), "it waits for its row")
                closing = asyncio.ensure_future(registry.close())
                await asyncio.sleep(0)
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
            assert (await asked).answer == "applied"
            await registry.close()

    run(test())


def test_reads_that_are_not_answered_end_with_the_store(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            registry = await w.peer()
            await w.sql.execute("BEGIN")
            await w.sql.execute(f'LOCK TABLE "{w.schema}".processes IN ACCESS EXCLUSIVE MODE')
            reads: list[Any] = [
                registry.get("p"),
                registry.get("p"),
                registry.count(),
                registry.next_due_at_ms(["x"], registry.now()),
            ]
            asked = [asyncio.ensure_future(read) for read in reads]
            await until(lambda: waiting(w), "a read waits for the table")
            await registry.close()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreClosed] * 4
            await w.sql.execute("ROLLBACK")

    run(test())


def test_a_read_whose_caller_gives_up_is_cancelled_and_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            await w.sql.execute("BEGIN")
            await w.sql.execute(f'LOCK TABLE "{w.schema}".processes IN ACCESS EXCLUSIVE MODE')
            given_up, kept = (asyncio.ensure_future(w.registry.get("p")) for _ in range(2))
            await until(lambda: waiting(w), "a read waits for the table")
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            await w.sql.execute("ROLLBACK")
            assert (await kept).id == "p"

    run(test())


def test_renewals_from_threads_are_answered_or_refused_whenever_the_store_closes(tmp_path: Path) -> None:
    renewals: list[ThreadFuture[Any]] = []
    refused: list[Exception] = []

    async def test() -> None:
        async with world(tmp_path) as w:
            registry = await w.peer()
            begun = threading.Event()

            def renew() -> None:
                for _ in range(20_000):
                    try:
                        renewals.append(registry.renew_from_thread(Renew(keys=(), ttl_ms=1_000)))
                    except StoreClosed as error:
                        refused.append(error)
                        return
                    begun.set()

            renewing = threading.Thread(target=renew)
            renewing.start()
            await asyncio.to_thread(begun.wait, 20)
            await registry.close()
            await asyncio.to_thread(renewing.join, 20)
            done, left = await asyncio.to_thread(wait_in_thread, renewals, 20)
            assert not left
            told = [error for one in done if (error := one.exception()) is not None]
            assert all(isinstance(error, StoreClosed) for error in told)
            assert len(told) < len(done)
            assert len(refused) == 1

    run(test())


def test_what_is_asked_of_a_loop_that_stops_is_refused_and_not_forgotten() -> None:
    loop = OwnLoop("postgresql://host/db")
    loop.start()

    async def never() -> None:
        await asyncio.Event().wait()

    under_way = [loop.call(never()) for _ in range(3)]
    loop.stop().result(20)
    with pytest.raises(StoreClosed):
        loop.call(never())
    with pytest.raises(StoreClosed):
        loop.soon(print)
    for one in under_way:
        with pytest.raises(StoreClosed, match="postgresql://host/db"):
            one.result(20)
