"""The public API, seen by a type checker: right uses pass, and each planted mistake is reported on its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

SOURCE = Path(__file__).parents[2] / "src"

PRELUDE = """
from dataclasses import dataclass
from datetime import timedelta

from perdure import Handle, Host, ProcessContext, Retry, SyncContext

@dataclass
class Question:
    topic: str

@dataclass
class Report:
    text: str

host = Host("memory://")

@host.process(recovery="rerunnable", retry=Retry(3), timeout=timedelta(hours=1))
async def research(ctx: ProcessContext, question: Question) -> Report:
    return Report(question.topic)

@host.process(recovery="owner_bound")
async def tidy(ctx: ProcessContext) -> int:
    return 1

@host.process(recovery="rerunnable")
def blocking(ctx: SyncContext, question: Question) -> Report:
    return Report(question.topic)
"""

RIGHT = """
async def main() -> None:
    run = await host.start(research, Question("why"), id="r", delay=1.5, deadline=timedelta(hours=1), priority=0)
    report: Report = await run.result()
    number: int = await (await host.start(tidy)).result()
    threaded: Handle[Report] = await host.start(blocking, Question("why"))
    many: list[Handle[Report]] = await host.start_many(research, [Question("a"), Question("b")], ids=["a", "b"])
    found: Handle[Report] = host.get_handle("r", research)
    again: Report = await found.result()
    print(report, number, threaded, many, again, [event.type async for event in run.events(after=1)])
"""

MISTAKES = {
    "an input of another type": "await host.start(research, 'why')",
    "a missing input": "await host.start(research)",
    "an input for a process that takes none": "await host.start(tidy, Question('why'))",
    "an input of another type for a thread": "await host.start(blocking, 7)",
    "one input of another type among many": "await host.start_many(research, [Question('a'), 'b'])",
    "a result of another type": "number: int = await (await host.start(research, Question('why'))).result()",
    "a result of another type, of a handle found": "text: str = await host.get_handle('r', research).result()",
    "a handle of another type": "handle: Handle[int] = await host.start(research, Question('why'))",
    "an option that doesn't exist": "await host.start(research, Question('why'), retries=3)",
    "a delay that is text": "await host.start(research, Question('why'), delay='soon')",
    "no declared recovery": "host.process(version=2)",
    "a recovery that doesn't exist": "host.process(recovery='sometimes')",
    "an external recovery": "host.process(recovery='externally_owned')",
    "a retry of owner_bound work": "host.process(recovery='owner_bound', retry=Retry(3))",
    "an abandonment that nobody asks for": "await host.get_handle('r').abandon(reason='gone')",
}


def in_main(line: str) -> str:
    return f"async def main() -> None:\n    {line}\n"


def options(folder: Path) -> list[str]:
    """Strict, and no configuration but our own."""
    (folder / "mypy.ini").write_text(f"[mypy]\nmypy_path = {SOURCE}\nstrict = True\n")
    return ["--no-error-summary", "--config-file", str(folder / "mypy.ini")]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the checker says about each module, by its name; nothing if it found no mistake."""
    folder = tmp_path_factory.mktemp("typed")
    modules = {"right": RIGHT, **{f"mistake_{n}": in_main(line) for n, line in enumerate(MISTAKES.values())}}
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(PRELUDE + text)
    said, problems, _ = api.run(
        [*options(folder), "--cache-dir", str(folder / "cache"), *(str(folder / f"{name}.py") for name in modules)]
    )
    assert not problems, problems
    lines = [line for line in said.splitlines() if "error:" in line]
    return {name: "\n".join(line for line in lines if f"{name}.py:" in line) for name in modules}


def test_right_uses_pass(reported: dict[str, str]) -> None:
    assert reported["right"] == ""


@pytest.mark.parametrize("what", MISTAKES)
def test_the_checker_reports(what: str, reported: dict[str, str]) -> None:
    name = f"mistake_{list(MISTAKES).index(what)}"
    last = len((PRELUDE + in_main("x")).splitlines())
    assert f"{name}.py:{last}: error:" in reported[name], reported[name] or "nothing was reported"


def test_a_wrong_result_inside_of_a_process_is_reported_too(tmp_path: Path) -> None:
    text = """
@host.process(recovery="rerunnable")
async def wrong(ctx: ProcessContext, question: Question) -> Report:
    return question.topic
"""
    (tmp_path / "wrong.py").write_text(PRELUDE + text)
    said, _, status = api.run([*options(tmp_path), "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "wrong.py")])
    assert status == 1
    assert "Incompatible return value type" in said
