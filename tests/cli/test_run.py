"""`perdure run`: a command of the system as a process, its output and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import Perdure, Start


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_exit_code_is_the_commands(script: str, code: int, perdure: Perdure) -> None:
    assert perdure("run", "--", "sh", "-c", script).exit_code == code


def test_what_is_not_there_or_no_program_exits_as_in_a_shell(perdure: Perdure, folder: Path) -> None:
    assert perdure("run", "--", "no-such-program").exit_code == 127
    assert perdure("run", "--", str(folder / "shop.py")).exit_code == 126


def test_its_lines_are_printed_where_they_were_written(perdure: Perdure) -> None:
    ran = perdure("run", "sh", "-c", "echo one; echo two >&2; pwd")
    assert ran.stdout.splitlines() == ["one", str(Path.cwd())]
    assert "two" in ran.stderr


def test_options_behind_the_command_are_its_own(perdure: Perdure) -> None:
    assert perdure("run", "--", "echo", "--id", "-x", "--json").stdout == "--id -x --json\n"


def test_with_json_stdout_is_one_document(perdure: Perdure) -> None:
    ran = perdure("--json", "run", "--id", "p", "--", "echo", "hello")
    said = json.loads(ran.stdout)
    assert (said["schema"], said["status"]) == ("perdure.run/1", "completed")
    assert "hello" in ran.stderr


def test_an_id_is_run_once(perdure: Perdure) -> None:
    assert perdure("run", "--id", "p", "--", "echo", "hello").exit_code == 0
    again = perdure("run", "--id", "p", "--", "echo", "hello")
    assert again.exit_code == 2
    assert "was run before" in again.stderr


def test_control_characters_do_not_reach_the_terminal(perdure: Perdure) -> None:
    assert "\x1b" not in perdure("run", "--", "printf", "\\033[31mred").stdout


def test_an_interrupt_cancels_the_command(start_process: Start, perdure: Perdure) -> None:
    program: subprocess.Popen[str] = start_process("run", "--id", "p", "--", "sh", "-c", "echo ready; sleep 600")
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    assert program.wait(20) == 130
    assert json.loads(perdure("show", "p", "--json").stdout)["status"] == "cancelled"
