"""What each command does when all is well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.cli.main import COMMANDS
from tests.cli.running import Perdure

READS = (
    ("ls",), ("ls", "-a"), ("show", "done-1"), ("events", "done-1"), ("explain", "done-1"), ("wait", "done-1"),
    ("journal", "done-1"), ("doctor",), ("doctor", "--verify"),
)  # fmt: skip


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_look_prints_one_json_document_with_its_schema(arguments: tuple[str, ...], perdure: Perdure) -> None:
    code = 1 if arguments[0] == "doctor" else 0  # the departed caller needs a decision
    result = perdure(*arguments, "--json")
    assert result.exit_code == code, result.stderr
    assert json.loads(result.stdout)["schema"].startswith(f"perdure.{arguments[0]}/")


@pytest.mark.usefixtures("work_db")
def test_ls_shows_what_lives_and_with_a_all(perdure: Perdure) -> None:
    live = [line.split("\t")[0] for line in perdure("ls").stdout.splitlines()]
    every = [line.split("\t")[0] for line in perdure("ls", "-a").stdout.splitlines()]
    assert live == ["delayed-1", "delayed-2", "departed-1", "external-1"]
    assert every == ["abandoned-1", "cancelled-1", *live[:2], live[2], "done-1", "external-1", "failed-1"]


@pytest.mark.usefixtures("work_db")
def test_ls_filters_by_status_definition_and_beginning(perdure: Perdure) -> None:
    def ids(*options: str) -> list[str]:
        return [line.split("\t")[0] for line in perdure("ls", *options).stdout.splitlines()]

    assert ids("-s", "failed", "-s", "abandoned") == ["abandoned-1", "failed-1"]
    assert ids("-a", "--definition", "boom") == ["failed-1"]
    assert ids("--prefix", "delayed-") == ["delayed-1", "delayed-2"]


@pytest.mark.usefixtures("work_db")
def test_ls_says_that_there_is_more_and_goes_on_after_an_id(perdure: Perdure) -> None:
    first = perdure("ls", "-n", "1")
    assert first.stdout.split("\t")[0] == "delayed-1"
    assert "--after delayed-1" in first.stderr
    rest = json.loads(perdure("ls", "--after", "delayed-1", "--json").stdout)
    assert [process["id"] for process in rest["processes"]] == ["delayed-2", "departed-1", "external-1"]
    assert rest["more"] is False


@pytest.mark.usefixtures("work_db")
def test_ls_of_nothing_that_lives_says_how_to_see_what_ended(perdure: Perdure) -> None:
    result = perdure("ls", "-s", "running")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "perdure ls -a" in result.stderr


@pytest.mark.usefixtures("work_db")
def test_show_tells_the_facts_and_hides_the_lease_token(perdure: Perdure) -> None:
    shown = perdure("show", "done-1").stdout
    assert "status\tcompleted" in shown
    assert 'note\t"hello you"' in shown
    assert "process.completed" in shown
    assert "token" not in perdure("show", "done-1", "--json").stdout


@pytest.mark.usefixtures("work_db")
def test_events_are_printed_in_order_and_past_a_sequence(perdure: Perdure) -> None:
    both = json.loads(perdure("events", "done-1", "--json").stdout)["events"]
    assert [event["type"] for event in both] == ["process.started", "process.completed"]
    assert perdure("events", "done-1", "--after", "1").stdout.split("\t")[0] == "2"


@pytest.mark.usefixtures("work_db")
def test_followed_events_of_an_ended_process_are_json_lines_that_end(perdure: Perdure) -> None:
    result = perdure("events", "done-1", "-f", "--json")
    assert [json.loads(line)["sequence"] for line in result.stdout.splitlines()] == [1, 2]


@pytest.mark.usefixtures("work_db")
def test_explain_gives_a_verdict_and_exits_5_when_attention_is_needed(perdure: Perdure) -> None:
    assert "verdict\tdelayed" in perdure("explain", "delayed-1").stdout
    departed = perdure("explain", "departed-1", "--json")
    assert departed.exit_code == 5
    assert json.loads(departed.stdout)["verdict"] == "departed"


@pytest.mark.usefixtures("work_db")
def test_a_unique_beginning_of_an_id_is_enough(perdure: Perdure) -> None:
    assert json.loads(perdure("show", "done", "--json").stdout)["id"] == "done-1"


@pytest.mark.usefixtures("work_db")
def test_cancel_ends_what_nobody_runs_and_may_be_repeated(perdure: Perdure) -> None:
    for _ in range(2):
        result = perdure("cancel", "delayed-1", "--reason", "why not", "--by", "me")
        assert (result.exit_code, result.stdout) == (0, "delayed-1\tcancelled\n")
    shown = json.loads(perdure("show", "delayed-1", "--json").stdout)
    assert shown["outcome"] == {"type": "cancelled", "reason": "why not", "by": "me"}


@pytest.mark.usefixtures("work_db")
def test_abandon_ends_what_nobody_can_finish(perdure: Perdure) -> None:
    result = perdure("abandon", "departed-1", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "abandoned"


def test_start_prints_an_id_and_the_same_start_is_the_same_process(perdure: Perdure) -> None:
    for _ in range(2):
        result = perdure("start", "shop:host", "greet", "--input", '"you"', "--id", "hello-1", "--db", "other.db")
        assert (result.exit_code, result.stdout) == (0, "hello-1\n"), result.stderr
    assert Path("other.db").exists()
    assert not Path("shop.db").exists()


def test_start_uses_the_hosts_own_database_unless_told_otherwise(perdure: Perdure) -> None:
    assert perdure("start", "shop:host", "tick").exit_code == 0
    assert Path("shop.db").exists()


@pytest.mark.parametrize("given", ["-", "@order.json"])
def test_start_reads_its_input_from_stdin_or_a_file(given: str, perdure: Perdure) -> None:
    text = '{"sku": "mug", "cents": 1200}'
    Path("order.json").write_text(text)
    result = perdure("start", "shop:host", "fulfil", "--input", given, "--delay", "1h", "--json", input=text)
    started = json.loads(result.stdout)
    assert started["registration"]["input"] == {"cents": 1200, "sku": "mug"}
    assert started["registration"]["delay_ms"] == 3_600_000


@pytest.mark.usefixtures("work_db")
def test_the_database_may_be_named_before_the_command_and_as_a_path(perdure: Perdure) -> None:
    assert json.loads(perdure("--db", "work.db", "--json", "ls").stdout)["processes"]


def test_every_command_is_in_the_table_of_help_and_help_finds_it(perdure: Perdure) -> None:
    for name in COMMANDS:
        assert perdure("help", name).stdout == perdure(name, "--help").stdout
