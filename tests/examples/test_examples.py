"""The examples as a reader runs them: real programs, in a folder of their own; and the README that shows them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BOUND_S = 60


def command_of(name: str) -> list[str]:
    return [sys.executable, "-u", "-W", "error", str(EXAMPLES / name)]


def run_example(name: str, folder: Path) -> str:
    ran = subprocess.run(command_of(name), cwd=folder, capture_output=True, text=True, timeout=BOUND_S)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def run_until(name: str, line: str, folder: Path) -> None:
    """Run an example until it has printed `line`, then kill it as nothing that could be caught."""
    with subprocess.Popen(command_of(name), cwd=folder, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        printed = running.stdout.readline().rstrip()
        running.send_signal(signal.SIGKILL)
    assert printed == line
    assert running.returncode == -signal.SIGKILL


def test_the_driver_alone_tells_its_story(tmp_path: Path) -> None:
    assert run_example("driver_only.py", tmp_path) == (
        "worker:     event 2 was progress; completed with 'hello Ada'\n"
        "own handle: completed with 3\n"
        "attach:     completed with 'done elsewhere'\n"
        "two drives: scanned and coalesced\n"
    )


def test_the_quickstart_is_finished_after_kill_9_by_the_next_program_at_once(tmp_path: Path) -> None:
    run_until("quickstart.py", "attempt 1: packing mug", tmp_path)

    began_s = time.monotonic()
    finished = run_example("quickstart.py", tmp_path)
    took_s = time.monotonic() - began_s
    asked_again = run_example("quickstart.py", tmp_path)

    assert finished == "attempt 2: packing mug\nmug shipped\n"
    assert took_s < 15, "taken over on proof of death, not after the 15 s of the lease"
    assert asked_again == "mug shipped\n"


def test_every_example_is_run_by_a_test() -> None:
    ran_here = {"driver_only.py", "quickstart.py"}
    ran_durably = {"agent.py", "documents.py", "order.py"}  # test_durable_examples.py
    assert {path.name for path in EXAMPLES.glob("*.py")} == ran_here | ran_durably


# --- the README ------------------------------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_the_python_block_of_the_readme_is_the_quickstart(readme: str) -> None:
    assert blocks(readme, "python")[0] == (EXAMPLES / "quickstart.py").read_text("utf-8")


def test_the_transcripts_of_the_readme_show_what_the_quickstart_prints(readme: str) -> None:
    for line in ("attempt 1: packing mug", "attempt 2: packing mug", "mug shipped"):
        assert line in readme


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/README.md", "docs/operating.md"])
def test_the_shell_commands_that_are_shown_exist(page: str) -> None:
    shown = [line for block in blocks((ROOT / page).read_text("utf-8"), "sh") for line in block.splitlines()]
    assert shown
    for line in shown:
        for command in re.split(r"&&|\|\||[;|&]", line.split("#")[0]):
            assert command_exists(command.split()), f"{page} shows {command!r}"


def command_exists(words: list[str]) -> bool:
    """Whether what is asked for is there: our program's subcommand, a module, a script, or a file of the checkout."""
    match words:
        case []:
            return True
        case [("python3" | ".venv/bin/python"), "-m", module, *_]:
            return module == "venv" or (ROOT / module).is_dir()
        case [("python" | ".venv/bin/python"), script, *_]:
            return (ROOT / script).is_file()
        case [".venv/bin/pip", "install", *_]:
            return True
        case [("perdure" | ".venv/bin/perdure"), subcommand, *_]:
            return subcommand.startswith("-") or subcommand in subcommands()
        case ["bash", script, *_]:
            return (ROOT / script).is_file()
        case [script, *_] if script.startswith("./"):
            return os.access(ROOT / script, os.X_OK)
        case [program, *_]:
            return program in {"sleep", "kill", "cd", "git", "cp", "mv"}
    return False


def subcommands() -> set[str]:
    asked = [sys.executable, "-c", "from perdure.cli.main import main; main()", "--help"]
    ran = subprocess.run(asked, capture_output=True, text=True, timeout=BOUND_S)
    assert ran.returncode == 0, ran.stderr
    listed = ran.stdout.partition("Commands:")[2].partition("\n\n")[0]
    return set(re.findall(r"^  ([a-z]+) {2,}", listed, re.MULTILINE))
