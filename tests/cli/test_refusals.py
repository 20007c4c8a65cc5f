"""What goes wrong, and the exit code and words it ends with."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from perdure.cli.exit_codes import MEANINGS, ExitCode
from tests.cli.running import Perdure

ON_ONE_ID = (("show",), ("events",), ("events", "-f"), ("wait",), ("cancel",), ("abandon",), ("explain",),
             ("journal",))  # fmt: skip
LOOKS = (("ls",), ("doctor",), *((*command, "some-id") for command in ON_ONE_ID))


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize("command", ON_ONE_ID, ids=" ".join)
def test_an_unknown_id_exits_4(command: tuple[str, ...], perdure: Perdure) -> None:
    result = perdure(*command, "nobody-1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "nobody-1" in result.stderr
    assert "perdure ls -a" in result.stderr


@pytest.mark.usefixtures("work_db")
def test_a_beginning_of_several_ids_exits_2_and_lists_them(perdure: Perdure) -> None:
    result = perdure("show", "dela")
    assert result.exit_code == 2
    assert "delayed-1, delayed-2" in result.stderr


@pytest.mark.usefixtures("work_db")
def test_a_beginning_of_three_characters_is_no_id(perdure: Perdure) -> None:
    assert perdure("show", "don").exit_code == 4


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize("id", ["-x", "a b", "\x1b[31m", "é"])
def test_what_can_be_no_id_exits_2(id: str, perdure: Perdure) -> None:
    result = perdure("show", "--", id)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_a_look_at_a_missing_database_exits_6_and_creates_nothing(command: tuple[str, ...], perdure: Perdure) -> None:
    result = perdure(*command, "--db", "sqlite:///missing.db")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "missing.db" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["shop.py"]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_a_foreign_database_exits_6_and_is_not_touched(command: tuple[str, ...], perdure: Perdure) -> None:
    with sqlite3.connect("foreign.db") as foreign:
        foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    before = Path("foreign.db").read_bytes()
    result = perdure(*command, "--db", "foreign.db")
    assert result.exit_code == 6
    assert "another program" in result.stderr + result.stdout
    assert Path("foreign.db").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["foreign.db", "shop.py"]


@pytest.mark.parametrize(
    "content", [b"", b"no database, but long enough to be taken for one" * 40], ids=["empty", "text"]
)
def test_a_file_that_is_no_database_exits_6(content: bytes, perdure: Perdure) -> None:
    Path("odd.db").write_bytes(content)
    result = perdure("ls", "--db", "odd.db")
    assert result.exit_code == 6
    assert Path("odd.db").read_bytes() == content


def test_a_newer_schema_exits_6_and_says_to_upgrade(work_db: str, perdure: Perdure) -> None:
    with sqlite3.connect("work.db") as newer:
        newer.execute("PRAGMA user_version = 999")
    newer.close()
    result = perdure("ls")
    assert result.exit_code == 6
    assert "Upgrade" in result.stderr


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize(
    ("ids", "code"),
    [
        (["done-1"], 0), (["failed-1"], 10), (["cancelled-1"], 11), (["abandoned-1"], 12), (["departed-1"], 13),
        (["done-1", "failed-1", "cancelled-1"], 11), (["abandoned-1", "done-1"], 12),
        (["delayed-1", "failed-1", "--timeout", "50ms"], 124),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)  # fmt: skip
def test_wait_exits_with_the_worst_end(ids: list[str], code: int, perdure: Perdure) -> None:
    result = perdure("wait", *ids)
    assert result.exit_code == code
    document = json.loads(perdure("wait", *ids, "--json").stdout)
    assert [process["id"] for process in document["processes"]] == [id for id in ids if id.endswith(("-1", "-2"))]


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize("command", ["cancel", "abandon"])
def test_ending_what_has_ended_otherwise_exits_5(command: str, perdure: Perdure) -> None:
    result = perdure(command, "done-1")
    assert result.exit_code == 5
    assert "completed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["greet", "--input", "you"], "quotes"),
        (["greet", "--input", "3"], "$"),
        (["greet"], "takes"),
        (["tick", "--input", "1"], "no input"),
        (["fulfil", "--input", '{"sku": "mug"}'], "cents"),
        (["fulfil", "--input", '{"sku": "mug", "sku": "cup", "cents": 1}'], "twice"),
        (["greet", "--input", "@missing.json"], "missing.json"),
        (["grete", "--input", '"x"'], "greet"),
        (["greet", "--input", '"x"', "--id", "no good"], "can't be a process id"),
        (["greet", "--input", '"x"', "--delay", "soon"], "duration"),
        (["greet", "--input", '"x"', "--timeout", "1s"], "--wait"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_bad_start_exits_2_and_writes_nothing(arguments: list[str], says: str, perdure: Perdure) -> None:
    result = perdure("start", "shop:host", *arguments)
    assert result.exit_code == 2, result.stderr
    assert says in result.stderr
    assert not Path("shop.db").exists()


@pytest.mark.parametrize("command", ["start", "worker"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("shop", "Expected MODULE:HOST"), ("shopp:host", "no module 'shopp'"), ("shop:hots", "It has: shop:host"),
        ("shop:not_a_host", "not a perdure.Host"), ("broken:host", "ZeroDivisionError"), ("torn:host", "SyntaxError"),
        ("needs:host", "nowhere_to_be_found"),
    ],
)  # fmt: skip
def test_what_leads_to_no_host_exits_2_without_a_traceback(
    command: str, given: str, says: str, perdure: Perdure
) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("torn.py").write_text("def (\n")
    Path("needs.py").write_text("import nowhere_to_be_found\n")
    result = perdure(command, given, *(["greet"] if command == "start" else []))
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_other_content_under_a_taken_id_exits_5(perdure: Perdure) -> None:
    start = ("start", "shop:host", "greet", "--id", "taken-1", "--input")
    assert perdure(*start, '"one"').exit_code == 0
    result = perdure(*start, '"two"')
    assert result.exit_code == 5
    assert "input" in result.stderr


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(perdure: Perdure) -> None:
    for typed, meant in (("ps", "ls"), ("why", "explain"), ("strat", "start")):
        result = perdure(typed)
        assert result.exit_code == 2
        assert f"perdure {meant}" in result.stderr


def test_an_unknown_url_exits_2_and_names_the_forms(perdure: Perdure) -> None:
    result = perdure("ls", "--db", "mysql://x")
    assert result.exit_code == 2
    assert "sqlite:///" in result.stderr


@pytest.mark.usefixtures("work_db")
def test_with_json_an_error_is_one_json_document_on_stderr(perdure: Perdure) -> None:
    result = perdure("show", "nobody-1", "--json")
    error = json.loads(result.stderr)
    assert (error["error"], error["exit_code"], error["process_id"]) == ("UnknownProcess", 4, "nobody-1")


def test_a_traceback_is_shown_only_when_it_is_asked_for(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in perdure("ls").stderr
    monkeypatch.setenv("PERDURE_DEBUG", "1")
    assert "Traceback" in perdure("ls").stderr


def test_the_table_of_exit_codes_names_every_code(perdure: Perdure) -> None:
    assert [int(code) for code, _ in MEANINGS] == [int(code) for code in ExitCode]
    shown = perdure("help", "exit-codes").stdout
    assert all(f"  {code} " in shown for code, _ in MEANINGS)
    assert len(json.loads(perdure("help", "exit-codes", "--json").stdout)["codes"]) == len(MEANINGS)


@pytest.mark.parametrize("command", [["ls"], ["show", "a"], ["migrate"], ["start", "shop:host", "tick"], ["doctor"]])
def test_a_missing_driver_is_named_with_how_to_get_it(
    command: list[str], perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    result = perdure(*command, "--db", "postgresql://app:secret@db.example/work")
    assert result.exit_code == ExitCode.STORE
    assert "the driver for PostgreSQL is not installed" in result.stderr
    assert "pip install 'perdure[postgres]'" in result.stderr
    assert "secret" not in result.stderr
