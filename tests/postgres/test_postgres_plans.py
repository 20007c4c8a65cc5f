"""What a claim costs: its statements enter their indexes, and what they visit doesn't grow with the tables.

The plans are those of the statements as they run inside the functions: auto_explain tells them to the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from perdure.testing.conformance.kit import WORK
from perdure.transitions.projection import lane
from tests.postgres.worlds import World, run, world

LANE = lane("default", WORK)
OTHER = "default|python/unknown@1"
WAITING, LATER, ENDED = 20_000, 20_000, 20_000

FILL = """
INSERT INTO {s}.processes (row, id, lane, priority, status, ready_at, state)
SELECT n, 'w' || n, $1, 3 + n % 5, 'pending', n, '{}' FROM generate_series(1, $3) AS n;
INSERT INTO {s}.processes (row, id, lane, priority, status, ready_at, state)
SELECT 1000000 + n, 'l' || n, $1, 5, 'pending', 9000000000000, '{}' FROM generate_series(1, $4) AS n;
INSERT INTO {s}.processes (row, id, lane, priority, status, ready_at, state)
SELECT 2000000 + n, 'o' || n, $2, 5, 'pending', n, '{}' FROM generate_series(1, $3) AS n;
INSERT INTO {s}.processes (row, id, lane, priority, status, state)
SELECT 3000000 + n, 'e' || n, $1, 5, 'completed', '{}' FROM generate_series(1, $5) AS n;
INSERT INTO {s}.registrations (row, change, body) SELECT row, 1, '{}' FROM {s}.processes;
INSERT INTO {s}.leases (row, owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id,
                        boot_expires_at, released, lane, priority, settle_at)
SELECT 3000000 + n, 'o', 'o-' || n % 50, 't', 1, 'c' || n, 1, 9000000000000, 'database', 9000000000000, false, $1, 5,
       NULL
FROM generate_series(1, $5) AS n
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The plans of every statement of one claim of 50 rows, in a store with many of every kind."""
    return plans_of_a_claim(tmp_path_factory.mktemp("plans"))


@pytest.fixture(scope="module")
def plans_without(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same where the claim's own indexes are gone."""
    return plans_of_a_claim(tmp_path_factory.mktemp("without"), dropped=("processes_ready", "leases_lapse"))


def plans_of_a_claim(folder: Path, dropped: Sequence[str] = ()) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def claim() -> None:
        async with world(folder) as w:
            values = (LANE, OTHER, WAITING, LATER, ENDED)
            for statement in FILL.replace("{s}", f'"{w.schema}"').split(";"):
                used = [n for n in range(1, 6) if f"${n}" in statement]
                for place, n in enumerate(used, 1):
                    statement = statement.replace(f"${n}", f"${place}")
                await w.sql.execute(statement, *(values[n - 1] for n in used))
            for index in dropped:
                await w.sql.execute(f'DROP INDEX "{w.schema}".{index}')
            await w.sql.execute("ANALYZE")
            found.extend(await _plans(w))

    run(claim())
    return found


async def _plans(w: World) -> list[dict[str, Any]]:
    told: list[str] = []
    sql: asyncpg.Connection[asyncpg.Record] = w.sql
    sql.add_log_listener(lambda _, message: told.append(message.message))
    await sql.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; "
        "SET auto_explain.log_format = 'json'; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off; "
        "SET client_min_messages = log; SET jit = off"
    )
    taken = await sql.fetchrow(
        f'SELECT * FROM "{w.schema}".take_claims($1, $2, $3, 50, NULL, NULL, $4)',
        ["a-1"], ["claim"], [LANE], ["o-1", "o-2"],
    )  # fmt: skip
    assert taken is not None
    assert [(priority, due) for priority, due in zip(taken["priorities"], taken["dues"], strict=True) if due][:3] == [
        (3, 5), (3, 10), (3, 15),
    ]  # fmt: skip
    await asyncio.sleep(0)
    found = [json.loads(message.partition("plan:\n")[2]) for message in told if "plan:" in message]
    return [plan for plan in found if "typeinfo_tree" not in plan["Query Text"]]  # the driver learns its types


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


def of_statement(plans: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The nodes of the one statement that holds this text."""
    matching = [plan for plan in plans if text in plan["Query Text"] and "take_claims" not in plan["Query Text"]]
    assert len(matching) == 1, text
    return nodes(matching[0]["Plan"])


@pytest.mark.parametrize(
    ("text", "index", "most"),
    [
        ("AS due, p.id FROM", "processes_ready", 500),
        ("p.id = ANY (page_ids)", "processes_id", 60),
        ("l.boot_expires_at <= boot_ms", "leases_lapse", 0),
        ("l.incarnation = ANY (dead)", "leases_claim", 1_000),
        ("asked.claim_id", "leases_claim", 0),
        ("unnest(lapsed || ready)", "processes_pkey", 120),
    ],
)
def test_a_statement_of_a_claim_enters_its_index_and_visits_what_it_wants(
    plans: list[dict[str, Any]], text: str, index: str, most: int
) -> None:
    used = [node for node in of_statement(plans, text) if node.get("Index Name") == index]
    assert used, f"{index} is not entered"
    visited = sum(node["Actual Rows"] * node["Actual Loops"] for node in used)
    assert visited <= most


def test_no_statement_of_a_claim_reads_a_table_through(plans: list[dict[str, Any]]) -> None:
    assert read_through(plans) == []


@pytest.mark.parametrize(
    ("text", "table", "index"),
    [
        ("AS due, p.id FROM", "processes", "processes_ready"),
        ("l.boot_expires_at <= boot_ms", "leases", "leases_lapse"),
    ],
)
def test_a_claim_without_its_index_would_be_seen_to_read_the_table_through(
    plans_without: list[dict[str, Any]], text: str, table: str, index: str
) -> None:
    found = of_statement(plans_without, text)
    assert index not in {node.get("Index Name") for node in found}
    passed_over = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in found)
    assert table in {node.get("Relation Name") for node in found}
    assert passed_over >= 20_000


def read_through(plans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (node["Relation Name"], plan["Query Text"][:60])
        for plan in plans
        for node in nodes(plan["Plan"])
        if node["Node Type"] == "Seq Scan"
    ]


def test_a_sequential_scan_would_be_seen(plans_without: list[dict[str, Any]]) -> None:
    assert "processes" in {table for table, _ in read_through(plans_without)}


def test_nothing_that_is_not_due_is_sorted(plans: list[dict[str, Any]]) -> None:
    """What enters a sort counts, not the few rows that a limit lets out of it."""
    sorts = [node for plan in plans for node in nodes(plan["Plan"]) if node["Node Type"].endswith("Sort")]
    entering = [child["Actual Rows"] * child["Actual Loops"] for node in sorts for child in node["Plans"]]
    assert entering
    assert max(entering) <= 1_000


def test_a_claim_takes_its_rows_by_priority_and_due_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for n in range(30):
                await w.register(f"p{n:02}", priority=9 - n % 10)
            taken = [one.record.registration.priority for one in (await w.claim(limit=12)).claimed]
            assert taken == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]

    run(test())
