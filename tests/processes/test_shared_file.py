"""Several operating system processes on one file: one registration (A.3), one outcome (B.9), one cancellation (C.3)."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from perdure.errors import LeaseSuperseded
from perdure.host import Host
from perdure.model.events import Event
from perdure.model.leases import LeaseKey
from perdure.model.outcomes import Cancelled, Completed
from perdure.transitions.commands import Complete, LeaseRight
from tests.processes.program import Script
from tests.processes.scripts.serve_holder import host_with_hold


async def start_hold(host: Host) -> None:
    await host.start(host.find_process("hold"), id="p")


async def log_of(host: Host) -> list[Event]:
    return list((await host.registry.events_after("p", 0)).events)


def test_four_programs_of_thirteen_coroutines_that_register_one_id_get_equal_answers(tmp_path: Path) -> None:
    database, log = tmp_path / "work.db", tmp_path / "errors.log"
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Script("register_one_id.py", str(database), "p", "13", log=log)) for _ in range(4)
        ]
        for program in programs:
            assert program.hear() == "ready"
        for program in programs:
            program.tell("go")
        answers = [json.loads(program.hear()) for program in programs]
        for program in programs:
            program.close()
    told = sorted(answer for given in answers for answer in given["answers"])
    assert told == ["applied"] + 51 * ["unchanged"]
    assert len({record for given in answers for record in given["records"]}) == 1

    async def rows() -> int:
        async with host_with_hold(str(database), "test", work=False) as host:
            return await host.registry.count()

    assert asyncio.run(rows()) == 1


def test_a_worker_stopped_past_its_lease_is_fenced_out_and_there_is_one_outcome(tmp_path: Path) -> None:
    database, log = tmp_path / "work.db", tmp_path / "errors.log"

    async def test(first: Script) -> None:
        async with asyncio.timeout(60), host_with_hold(str(database), "test", work=False) as host:
            assert await asyncio.to_thread(first.hear) == "serving first"
            await start_hold(host)
            assert await asyncio.to_thread(first.hear) == "entered first 1 1"
            stale = await host.registry.get_lease("p")
            assert stale is not None
            first.pause_between_commits(database)

            with Script("serve_holder.py", str(database), "second", log=log) as second:
                assert await asyncio.to_thread(second.hear) == "serving second"
                assert await asyncio.to_thread(second.hear) == "entered second 2 2"
                outcome = await host.get_handle("p").outcome()
                assert outcome == Completed(msgspec.Raw(b'"done by second"'))

                first.resume()
                assert (await asyncio.to_thread(first.hear)).startswith("cancelled first its lease")
                assert await asyncio.to_thread(first.hear) == "refused first LeaseSuperseded"
                with pytest.raises(LeaseSuperseded):
                    await host.registry.execute(the_same_end(stale.key))
                second.close()
            await asyncio.to_thread(first.close)
            await check_log(host)

    async def check_log(host: Host) -> None:
        events = await log_of(host)
        assert [event.type for event in events] == ["process.started", "process.started", "process.completed"]
        said = [msgspec.json.decode(event.payload) for event in events]
        assert [said[0]["owner"]["name"], said[1]["owner"]["name"]] == ["first", "second"]
        assert (said[1]["takeover"]["owner"]["name"], said[1]["takeover"]["cause"]) == ("first", "lapsed")
        assert (said[0]["fence"], said[1]["fence"]) == (1, 2)
        assert (await host.registry.get("p")).outcome == Completed(msgspec.Raw(b'"done by second"'))

    with Script("serve_holder.py", str(database), "first", log=log) as first:
        asyncio.run(test(first))


def the_same_end(key: LeaseKey) -> Complete:
    outcome = Completed(msgspec.Raw(b'"done by second"'))
    return Complete(process_id="p", outcome=outcome, authority=LeaseRight(key))


def test_a_cancellation_reaches_the_code_in_another_program_and_its_clean_up_runs(tmp_path: Path) -> None:
    database, log = tmp_path / "work.db", tmp_path / "errors.log"

    async def test(worker: Script) -> None:
        async with asyncio.timeout(60), host_with_hold(str(database), "test", work=False) as host:
            assert await asyncio.to_thread(worker.hear) == "serving worker"
            await start_hold(host)
            assert await asyncio.to_thread(worker.hear) == "entered worker 1 1"
            asked = await host.get_handle("p").cancel("enough", by="tester")
            assert (asked.status, asked.outcome) == ("running", None)
            assert await asyncio.to_thread(worker.hear) == "cancelled worker enough"
            assert await host.get_handle("p").outcome() == Cancelled("enough", "tester")
            types = [event.type for event in await log_of(host)]
            assert types == ["process.started", "process.cancel_requested", "late", "process.cancelled"]
            await asyncio.to_thread(worker.close)

    with Script("serve_holder.py", str(database), "worker", log=log) as worker:
        asyncio.run(test(worker))
