"""`perdure journal`: what the code of a process was given, for people, pipes and programs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from perdure import Host, ProcessContext
from perdure.errors import StepFailed
from tests.cli.conftest import EVIL
from tests.cli.running import Perdure


def charge(cents: int) -> str:
    return f"receipt for {cents}"


def ship(sku: str) -> str:
    raise ValueError(EVIL)


@pytest.fixture
def order_db(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with one process that has charged, waited, and failed to ship."""
    host = Host("sqlite:///order.db", name="filler")

    @host.process(recovery="rerunnable")
    async def order(ctx: ProcessContext) -> None:
        await ctx.step(charge, 1200)
        await ctx.sleep(0)
        try:
            await ctx.step(ship, "mug", key="shipped")
        except StepFailed:
            return

    async def fill() -> None:
        async with host:
            await (await host.start(order, id="order-1")).outcome()

    asyncio.run(fill())
    monkeypatch.setenv("PERDURE_URL", "sqlite:///order.db")


@pytest.mark.usefixtures("order_db")
def test_each_entry_is_a_line_with_its_kind_key_status_and_what_it_tells(perdure: Perdure) -> None:
    result = perdure("journal", "order-1")
    assert result.exit_code == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(row[0], *row[2:6]) for row in rows] == [
        ("2", "1", "step", "charge", "completed"), ("3", "1", "timer", "sleep", "over"),
        ("4", "1", "wait", "sleep", "elapsed"), ("5", "1", "step", "shipped", "failed"),
    ]  # fmt: skip
    assert rows[0][6] == '[1200] -> "receipt for 1200"'
    assert rows[1][6].startswith("due 2")
    assert rows[3][6] == r'["mug"] -> ValueError: red \x1b[31m\r\nline \u202eodd\u202c \x9b2J \x7f end'


@pytest.mark.usefixtures("order_db")
def test_the_json_document_has_every_entry_decoded(perdure: Perdure) -> None:
    document = json.loads(perdure("journal", "order-1", "--json").stdout)
    assert (document["schema"], document["process_id"]) == ("perdure.journal/1", "order-1")
    charged, timer, slept, shipped = document["entries"]
    del charged["at_ms"], slept["at_ms"]
    assert charged == {
        "sequence": 2, "attempt": 1, "kind": "step", "key": "charge", "status": "completed", "tries": 1,
        "arguments": [1200], "value": "receipt for 1200",
    }  # fmt: skip
    assert timer["due_at_ms"] <= timer["at_ms"]
    assert slept == {"sequence": 4, "attempt": 1, "kind": "wait", "key": "sleep", "status": "elapsed"}
    assert (shipped["error"]["type"], shipped["error"]["message"]) == ("ValueError", EVIL)


@pytest.mark.usefixtures("work_db")
def test_a_process_without_a_journal_is_said_to_have_none(perdure: Perdure) -> None:
    result = perdure("journal", "done-1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "perdure events" in result.stderr
