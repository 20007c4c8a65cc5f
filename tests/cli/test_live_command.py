"""perdure events --live and the progress that perdure show tells, of a process that runs in another program."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Host, ProcessContext
from tests.cli.running import Perdure, Start, ended, until

TALKER = """
import asyncio, sys
from pathlib import Path
from perdure import Host, ProcessContext

host = Host(sys.argv[1])

@host.process(recovery="rerunnable")
async def talk(ctx: ProcessContext, turns: int) -> str:
    async def speak() -> str:
        while not list(Path("work.db.owners/live").glob("*.live")):  # until somebody follows
            await asyncio.sleep(0.01)
        for number in range(turns):
            ctx.publish("tokens", f"word {number} \\x1b[31m")
            ctx.publish("log", {"turn": number})
            ctx.progress(number + 1, turns, "talking")
            await asyncio.sleep(0.01)
        return "spoken"
    return await ctx.step(speak)

async def main():
    async with host:
        print("open", flush=True)
        await host.start(talk, int(sys.argv[2]), id="talk-1")
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.fixture
def talker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that runs talk-1 on work.db as soon as somebody follows it; it ends with its input."""
    command = [sys.executable, "-c", TALKER, f"sqlite:///{folder / 'work.db'}", "50"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "open\n"
        yield run
        run.kill()


@pytest.mark.usefixtures("talker")
def test_live_output_and_progress_are_printed_between_the_events_until_the_end(perdure: Perdure) -> None:
    until(lambda: perdure("show", "talk-1", "--db", "work.db").exit_code == 0)
    result = perdure("events", "talk-1", "--live", "--json", "--db", "work.db")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    types = [line["type"] for line in lines if "type" in line]
    assert types == ["process.started", "step.completed", "process.completed"]
    for channel, last in (("tokens", "word 49 \x1b[31m"), ("log", {"turn": 49})):
        chunks = [line for line in lines if line.get("channel") == channel]
        assert chunks[-1]["value"] == last
        assert (chunks[-1]["step"], chunks[-1]["attempt"], chunks[-1]["fence"]) == ("speak", 1, 1)
        assert len(chunks) + sum(line["missed"] for line in chunks) == 50
    progress = [line["progress"] for line in lines if "progress" in line]
    assert [progress[-1][name] for name in ("done", "total", "note")] == [50, 50, "talking"]


@pytest.mark.usefixtures("talker")
def test_in_a_pipe_what_is_live_is_marked_and_made_safe(start_process: Start) -> None:
    code, out, err = ended(start_process("events", "talk-1", "--live", "--db", "work.db"))
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[3] for row in rows if row[:3:2] == ["~", "tokens"]][-1] == "word 49 \\x1b[31m"
    assert [row[3] for row in rows if row[:3:2] == ["~", "log"]][-1] == '{"turn":49}'
    assert [row[3] for row in rows if row[0] == "%"][-1] == "50 of 50 (100%) talking"
    assert [row[2] for row in rows if row[0].isdigit()] == ["process.started", "step.completed", "process.completed"]


@pytest.mark.usefixtures("talker")
def test_following_live_is_left_by_a_signal_like_following_the_log(start_process: Start) -> None:
    running = start_process("events", "talk-1", "--live", "--db", "work.db")
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("~"):
            break
    running.send_signal(signal.SIGINT)
    code, _, err = ended(running)
    assert (code, err) == (130, "left at event 1; go on with --after 1\n")


def test_live_of_what_has_ended_is_its_log_and_its_last_progress(folder: Path, perdure: Perdure) -> None:
    asyncio.run(_run_one(f"sqlite:///{folder / 'work.db'}"))
    result = perdure("events", "done-1", "--live", "--db", "work.db")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(row[0], row[2]) for row in rows if row[0] != "%"] == [
        ("1", "process.started"), ("2", "process.completed"),
    ]  # fmt: skip
    assert [row[3] for row in rows if row[0] == "%"] == ["2.5 of 10 (25%) a quarter"]
    shown = perdure("show", "done-1", "--db", "work.db").stdout
    assert "\nprogress\t2.5 of 10 (25%) a quarter [attempt 1, " in shown
    document = json.loads(perdure("show", "done-1", "--json", "--db", "work.db").stdout)
    assert [document["progress"][name] for name in ("done", "total", "note")] == [2.5, 10, "a quarter"]


async def _run_one(url: str) -> None:
    host = Host(url)

    @host.process(recovery="rerunnable")
    async def work(ctx: ProcessContext) -> None:
        ctx.progress(2.5, 10, "a quarter")

    async with host:
        await (await host.start(work, id="done-1")).result()


@pytest.mark.usefixtures("work_db")
def test_show_of_a_process_that_said_nothing_tells_no_progress(perdure: Perdure) -> None:
    assert "progress" not in perdure("show", "done-1").stdout
    assert json.loads(perdure("show", "done-1", "--json").stdout)["progress"] is None


@pytest.mark.usefixtures("work_db")
def test_live_of_what_has_no_end_to_wait_for_is_refused(perdure: Perdure) -> None:
    result = perdure("events", "departed-1", "--live")
    assert result.exit_code == 13
    assert "has departed" in result.stderr
