"""`perdure check`: on a program with mistakes, on the examples, and on the code that the documents show."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Host, ProcessContext
from perdure.cli.checking.analysis import Entry, findings_in
from perdure.cli.checking.scopes import first_line
from perdure.cli.checking.sources import check_processes
from tests.cli.running import Perdure
from tests.cli.test_terminal import on_a_terminal

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if "Host(" in path.read_text("utf-8"))
PAGES = sorted((ROOT / "docs").rglob("*.md")) + sorted(ROOT.glob("*.md")) + sorted((ROOT / "examples").glob("*.md"))

CARELESS = """
import functools
import time
import perdure

host = perdure.Host("sqlite:///careless.db")

def noted(function):
    @functools.wraps(function)
    async def inside(*args):
        return await function(*args)
    return inside

@host.process(recovery="rerunnable")
@noted
async def write(ctx: perdure.ProcessContext, pages: list[str]) -> float:
    for page in pages:
        await ctx.step(str, page)
    return time.time()

@host.process(recovery="rerunnable")
def careful(ctx: perdure.SyncContext) -> None:
    ctx.step(str, "a")

idle = perdure.Host("sqlite:///idle.db")
"""


@pytest.fixture
def careless(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with two processes, one of them with two mistakes."""
    (folder / "careless.py").write_text(CARELESS)
    monkeypatch.delitem(__import__("sys").modules, "careless", raising=False)


@pytest.mark.usefixtures("careless")
def test_each_finding_is_a_line_with_its_place_and_its_fix_and_the_exit_code_is_1(perdure: Perdure) -> None:
    result = perdure("check", "careless:host")
    assert result.exit_code == 1
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["careless.py:18", "key", "ctx.step(str, …) in a loop has no key"],
        ["careless.py:19", "unrecorded", "time.time() outside of a step"],
    ]
    assert rows[1][4] == "use await ctx.now(), a time that is recorded, or make it in a step"
    assert result.stderr == "2 findings in 2 processes\n"
    assert not Path("careless.db").exists()


@pytest.mark.usefixtures("careless")
def test_the_json_document_names_the_processes_and_every_finding(perdure: Perdure) -> None:
    result = perdure("check", "careless:host", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["schema"], document["unread"]) == ("perdure.check/1", [])
    assert document["processes"] == ["python/write@1", "python/careful@1"]
    key, _ = document["findings"]
    assert key.pop("why").startswith("it is known by its name")
    assert key == {
        "file": "careless.py", "line": 18, "column": 15, "rule": "key", "process": "python/write@1",
        "what": "ctx.step(str, …) in a loop has no key",
        "fix": "give it a key that says what it is for: ctx.step(…, key=…)",
    }  # fmt: skip


@pytest.mark.usefixtures("careless")
def test_a_host_without_mistakes_exits_0_and_one_without_processes_is_told(perdure: Perdure) -> None:
    fine = perdure("check", "shop:host")
    assert (fine.exit_code, fine.stdout, fine.stderr) == (0, "", "0 findings in 5 processes\n")
    idle = perdure("check", "careless:idle")
    assert (idle.exit_code, idle.stderr) == (0, "careless:idle defines no process\n")


@pytest.mark.usefixtures("careless")
def test_on_a_terminal_each_finding_has_its_reason_and_its_fix_below_it() -> None:
    styled = on_a_terminal("check", "careless:host", columns=200)
    place, why, fix, *_ = (re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in styled.splitlines())
    assert place == "careless.py:18 ctx.step(str, …) in a loop has no key"
    assert why.startswith("  why: it is known by its name")
    assert fix == "  fix: give it a key that says what it is for: ctx.step(…, key=…)"


@pytest.mark.parametrize("given", ["shop", "shop:not_a_host", "nowhere:host"])
def test_what_leads_to_no_host_exits_2(given: str, perdure: Perdure) -> None:
    assert perdure("check", given).exit_code == 2


def test_processes_whose_source_is_not_to_be_had_are_named() -> None:
    host = Host("memory:")
    program: dict[str, object] = {"ProcessContext": ProcessContext, "host": host}
    exec("@host.process(recovery='rerunnable')\nasync def typed_in(ctx: ProcessContext) -> None: ...", program)
    findings, ((process, why),) = check_processes(host.processes)
    assert (findings, process) == ([], "python/typed_in@1")
    assert why == "its source can't be found (<string>)"


def test_a_file_that_was_changed_since_it_was_imported_is_told(folder: Path, perdure: Perdure) -> None:
    (folder / "edited.py").write_text(
        "import perdure, pathlib\nhost = perdure.Host('memory:')\n"
        "@host.process(recovery='rerunnable')\nasync def work(ctx: perdure.ProcessContext) -> None: ...\n"
        "pathlib.Path(__file__).write_text('')\n"
    )
    result = perdure("check", "edited:host", "--json")
    assert result.exit_code == 0
    assert "edited.py is not what was imported" in json.loads(result.stdout)["unread"][0]["why"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_found_in_the_examples(name: str, perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    result = perdure("check", f"{name}:host")
    assert (result.exit_code, result.stdout) == (0, ""), result.stdout
    assert "not read" not in result.stderr


def shown_code() -> Iterator[tuple[str, str]]:
    """(page and number, code) of every block of Python in the documents that has a process in it."""
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            if ".process(" in block:
                yield f"{page.relative_to(ROOT)} block {number}", textwrap.dedent(block)


@pytest.mark.parametrize("code", [pytest.param(code, id=id) for id, code in shown_code()])
def test_nothing_is_found_in_the_code_that_the_documents_show(code: str) -> None:
    entries = [
        Entry(node.name, first_line(node), node.args.args[0].arg, isinstance(node, ast.FunctionDef))
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if any(".process(" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    assert entries
    assert findings_in(code, "shown.py", entries) == []
