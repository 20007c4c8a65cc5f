"""What doctor finds in a healthy database, beside a dead worker, and in a damaged file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from perdure import Host, ProcessContext, WorkerOptions
from tests.cli.running import Perdure, Start, status, until

NAMES = {
    "file", "permissions", "filesystem", "sqlite", "schema", "journal", "wal", "clock", "wake", "leases", "attention",
    "status",
}  # fmt: skip


def checks(perdure: Perdure, *options: str, db: str = "shop.db") -> tuple[int, list[dict[str, Any]]]:
    result = perdure("doctor", "--json", "--db", db, *options)
    return result.exit_code, json.loads(result.stdout)["checks"]


def states(found: list[dict[str, Any]]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in found}


@pytest.fixture
def shop_db(perdure: Perdure) -> str:
    perdure("start", "shop:host", "tick", "--id", "tick-1")
    perdure("cancel", "tick-1", "--db", "shop.db")
    return "shop.db"


@pytest.mark.usefixtures("shop_db")
def test_a_healthy_database_passes_every_check_by_name(perdure: Perdure) -> None:
    code, found = checks(perdure, "--verify")
    assert code == 0
    assert NAMES | {"quick_check", "verify", "owners"} == {check["name"] for check in found}
    assert set(states(found).values()) == {"ok"}


@pytest.mark.usefixtures("shop_db")
def test_a_file_open_to_others_is_a_warning_with_its_remedy(perdure: Perdure) -> None:
    os.chmod("shop.db", 0o644)
    code, found = checks(perdure)
    (permissions,) = [check for check in found if check["name"] == "permissions"]
    assert (code, permissions["state"]) == (0, "warn")
    assert "chmod 600" in permissions["fix"]


def test_a_live_worker_is_told_from_a_dead_one_by_proof(perdure: Perdure, start_process: Start) -> None:
    perdure("start", "shop:host", "sleep", "--input", "60", "--id", "long-1")
    worker = start_process("worker", "shop:host", "--name", "w1")
    until(lambda: status(perdure, "long-1") == "running")
    code, found = checks(perdure)
    (owner,) = [check for check in found if check["name"] == "owner"]
    assert (code, owner["state"]) == (0, "ok")
    assert "is alive, 1 lease" in owner["detail"]

    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    code, found = checks(perdure)
    (owner,) = [check for check in found if check["name"] == "owner"]
    assert (code, owner["state"]) == (0, "warn")
    assert "is dead, 1 lease: lock_released" in owner["detail"]
    assert states(found)["leases"] == "warn"


def test_owner_bound_work_of_a_dead_worker_fails_the_check_with_the_command_that_ends_it(
    perdure: Perdure, start_process: Start
) -> None:
    perdure("start", "shop:host", "once", "--input", "60", "--id", "once-1")
    worker = start_process("worker", "shop:host")
    until(lambda: status(perdure, "once-1") == "running")
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    code, found = checks(perdure)
    (attention,) = [check for check in found if check["name"] == "attention"]
    assert (code, attention["state"]) == (1, "fail")
    assert "needs_abandon" in attention["detail"]
    assert "perdure abandon once-1" in attention["fix"]


def test_a_run_that_a_drain_has_given_back_waits_for_a_worker(perdure: Perdure) -> None:
    asyncio.run(drained("long-1"))
    code, found = checks(perdure)
    (leases,) = [check for check in found if check["name"] == "leases"]
    assert (code, leases["state"]) == (0, "warn")
    assert leases["detail"] == "1 run waits for a worker: long-1"


async def drained(id: str) -> None:
    """A worker is stopped in peace while it runs this process."""
    host = Host("sqlite:///shop.db", options=WorkerOptions(drain_grace_ms=0))
    entered = asyncio.Event()

    @host.process(recovery="rerunnable")
    async def long(ctx: ProcessContext) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with host:
        await host.start(long, id=id)
        await entered.wait()


def test_a_run_that_is_to_be_abandoned_is_told_and_not_said_to_run_again(
    perdure: Perdure, start_process: Start
) -> None:
    perdure("start", "shop:host", "once", "--input", "60", "--id", "once-1")
    worker = start_process("worker", "shop:host")
    until(lambda: status(perdure, "once-1") == "running")
    worker.send_signal(signal.SIGSTOP)  # it must not come to its end by itself meanwhile
    assert perdure("abandon", "once-1", "--db", "shop.db").exit_code == 0
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    code, found = checks(perdure)
    (leases,) = [check for check in found if check["name"] == "leases"]
    assert (code, leases["state"]) == (0, "warn")
    assert leases["detail"] == "1 run that nobody works at is to be abandoned: once-1"
    assert states(found)["attention"] == "ok"


@pytest.mark.parametrize(
    ("statement", "process_id", "problem"),
    [
        ("UPDATE events SET payload = replace(payload, 'cancelled', 'kancelled')", "tick-1", "checksum"),
        ("UPDATE events SET sequence = 7 WHERE sequence = 2", "tick-1", "gap"),
        ("DELETE FROM events WHERE sequence = 2", "tick-1", "the record says"),
        ("UPDATE processes SET status = 'pending'", "tick-1", "column status"),
        ("UPDATE processes SET state = json_set(state, '$.attempt', 1)", "tick-1", "attempt"),
        ("UPDATE processes SET state = '{]'", "tick-1", "damaged"),
        ("DELETE FROM registrations", "tick-1", "no registration"),
        ("DELETE FROM processes", "", "belongs to no process"),
    ],
    ids=lambda value: value[:40],
)
@pytest.mark.usefixtures("shop_db")
def test_verify_lists_each_damaged_row(statement: str, process_id: str, problem: str, perdure: Perdure) -> None:
    with sqlite3.connect("shop.db") as damaged:
        damaged.execute(statement)
    damaged.close()
    result = perdure("doctor", "--verify", "--json", "--db", "shop.db")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["healthy"] is False
    assert any(d["process_id"] == process_id and problem in d["problem"] for d in document["damages"]), document


@pytest.mark.usefixtures("shop_db")
def test_a_status_that_this_version_does_not_know_fails_a_check(perdure: Perdure) -> None:
    with sqlite3.connect("shop.db") as newer:
        newer.execute("UPDATE processes SET status = 'dreaming'")
    newer.close()
    code, found = checks(perdure)
    (unknown,) = [check for check in found if check["name"] == "status"]
    assert (code, unknown["state"]) == (1, "fail")
    assert "tick-1 (dreaming)" in unknown["detail"]


@pytest.mark.usefixtures("shop_db")
def test_a_clock_that_was_set_back_fails_a_check(perdure: Perdure) -> None:
    with sqlite3.connect("shop.db") as future:
        future.execute("UPDATE processes SET state = json_set(state, '$.updated_at_ms', 99999999999999)")
    future.close()
    assert states(checks(perdure)[1])["clock"] == "fail"


@pytest.mark.usefixtures("shop_db")
def test_a_torn_page_fails_the_quick_check(perdure: Perdure) -> None:
    content = bytearray(Path("shop.db").read_bytes())
    pages = len(content) // 4096
    for page in range(3, pages):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    Path("shop.db").write_bytes(content)
    result = perdure("doctor", "--verify", "--db", "shop.db")
    assert result.exit_code in (1, 6)
    assert "fail" in result.stdout
