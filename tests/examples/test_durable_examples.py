"""The examples of durable functions, run as a reader runs them; and killed as nothing that could be caught."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BOUND_S = 60


def command_of(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", "-W", "error", str(EXAMPLES / name), *arguments]


def run_example(name: str, folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        command_of(name, *arguments), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=BOUND_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


# --- order.py --------------------------------------------------------------------------------------------------

FINISHED = """\
order-1: shipped a mug
order-1: ended with 'parcel-order-1'
order-2: charged 90000 cents
order-2: not shipped: step 'ship' failed: ValueError: the carrier takes no piano of 300 kg
order-2: refunded 90000 cents of receipt-order-2
order-2: ended with 'refunded'
"""
BANK = """\
the bank was called for:
  charge order-1 1200
  charge order-2 90000
  refund order-2 90000
"""


def test_an_order_killed_after_its_payment_is_finished_and_not_charged_again(tmp_path: Path) -> None:
    killed = subprocess.run(
        command_of("order.py", "--kill"), cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S
    )

    finished = run_example("order.py", tmp_path)

    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "order-1: charged 1200 cents\norder-1: paid with receipt-order-1; killing this program\n"
    assert finished == FINISHED + BANK


def test_an_order_that_has_ended_is_only_told_again(tmp_path: Path) -> None:
    first = run_example("order.py", tmp_path)
    again = run_example("order.py", tmp_path)

    assert first == "order-1: charged 1200 cents\n" + FINISHED + BANK
    assert again == "order-1: ended with 'parcel-order-1'\norder-2: ended with 'refunded'\n" + BANK


# --- documents.py ----------------------------------------------------------------------------------------------


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Ten files, some in a folder below, and one whose name a shell would stumble over."""
    folder = tmp_path / "documents"
    (folder / "below").mkdir(parents=True)
    for number in range(9):
        Path(folder, "below" if number % 2 else ".", f"page-{number}.txt").write_text("word " * number)
    Path(folder, "it's $(here); a page.txt").write_text("two words")
    return folder


def catalogue_of(folder: Path) -> str:
    """What is to be said of the files in it, found out without Perdure."""
    lines, total = [], 0
    for path in sorted(str(path) for path in folder.rglob("*") if path.is_file()):
        content = Path(path).read_bytes()
        words = len(content.split())
        packed = len(subprocess.run(["gzip", "-nc", "--", path], check=True, capture_output=True).stdout)
        digest = hashlib.sha256(content).hexdigest()[:12]
        lines.append(f"{digest} {words:7} words {packed:7} bytes packed  {Path(path).relative_to(folder)}\n")
        total += words
    return "".join(lines) + f"{len(lines)} files, {total} words\n"


def test_every_document_of_a_folder_is_examined(tmp_path: Path, documents: Path) -> None:
    told = run_example("documents.py", tmp_path, str(documents))
    again = run_example("documents.py", tmp_path, str(documents))

    assert told == "8 of 10 files\n10 of 10 files\n" + catalogue_of(documents)
    assert again == told


def test_documents_killed_while_their_commands_run_are_examined_by_the_next_program(
    tmp_path: Path, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "wc"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch "{tmp_path}/counting"\nsleep 600\n')
    slow.chmod(0o755)
    path = os.environ["PATH"]
    with monkeypatch.context() as slowed:
        slowed.setenv("PATH", f"{slow.parent}{os.pathsep}{path}")
        with subprocess.Popen(command_of("documents.py", str(documents)), cwd=tmp_path) as running:
            given_up_at = time.monotonic() + BOUND_S
            while not Path(tmp_path, "counting").exists():
                assert time.monotonic() < given_up_at
                time.sleep(0.01)
            running.send_signal(signal.SIGKILL)
    shutil.rmtree(slow.parent)

    told = run_example("documents.py", tmp_path, str(documents))

    assert running.returncode == -signal.SIGKILL
    assert told == "8 of 10 files\n10 of 10 files\n" + catalogue_of(documents)


# --- agent.py --------------------------------------------------------------------------------------------------

APPROVED_OR_REFUSED = {"tea: the rule: yes\n", "saffron: the rule: no\n"}

AGENT = """\
coffee: how much is left? [stock]
coffee: stock -> 40
coffee: 40 coffee left, that is enough
tea: how much is left? [stock]
tea: stock -> 3
tea: only 3 left; what would a box cost? [price]
tea: price -> 25
tea: a box is 25 euros; may I? [order]
tea: the rule: yes
tea: order -> a box of tea is on its way
tea: done: a box of tea is on its way
saffron: how much is left? [stock]
saffron: stock -> 1
saffron: only 1 left; what would a box cost? [price]
saffron: price -> 900
saffron: a box is 900 euros; may I? [order]
saffron: the rule: no
saffron: saffron is not ordered: refused by the rule
"""

TYPED = """\
coffee ~ how much is left?
coffee ~ 40 coffee left, that is enough
coffee: 40 coffee left, that is enough
tea ~ how much is left?
tea ~ only 3 left; what would a box cost?
tea ~ a box is 25 euros; may I?
tea ~ done: a box of tea is on its way
tea: done: a box of tea is on its way
saffron ~ how much is left?
saffron ~ only 1 left; what would a box cost?
saffron ~ a box is 900 euros; may I?
saffron ~ saffron is not ordered: refused by the rule
saffron: saffron is not ordered: refused by the rule
"""


def test_the_agent_goes_by_what_its_tools_and_the_human_say(tmp_path: Path) -> None:
    assert run_example("agent.py", tmp_path) == AGENT


def test_what_the_agents_model_says_is_typed_while_it_says_it(tmp_path: Path) -> None:
    told = run_example("agent.py", tmp_path, "--live")
    again = run_example("agent.py", tmp_path, "--live")

    assert told == TYPED
    assert again == "".join(line for line in TYPED.splitlines(keepends=True) if " ~ " not in line)


def test_the_agents_story_is_in_its_log_and_asks_nobody_again(tmp_path: Path) -> None:
    run_example("agent.py", tmp_path)

    again = run_example("agent.py", tmp_path)

    assert again == "".join(line for line in AGENT.splitlines(keepends=True) if line not in APPROVED_OR_REFUSED)


def test_an_agent_killed_before_the_approval_is_taken_up_where_it_was(tmp_path: Path) -> None:
    with subprocess.Popen(
        command_of("agent.py"), cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line == "tea: a box is 25 euros; may I? [order]\n":
                break
        running.send_signal(signal.SIGKILL)

    told = run_example("agent.py", tmp_path)

    assert running.returncode == -signal.SIGKILL
    asked_in_the_killed_program = AGENT.replace("tea: the rule: yes\n", "")
    assert told in (AGENT, asked_in_the_killed_program)
