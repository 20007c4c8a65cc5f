"""The documents speak of what exists: links lead somewhere, tests and cases that are named are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.cli.exit_codes import MEANINGS
from perdure.contract import ports, verbs
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.options import WorkerOptions
from perdure.testing.conformance import cases

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md"))
)

# Words that the glossary avoids and that would mean nothing else in a name of ours.
AVOIDED = ("acquire", "broker", "cooldown", "dequeue", "heartbeat", "nack", "orphan", "polling", "reap", "shutdown")


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose_of(page: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors_of(found), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_can_be_reached_from_the_readme(page: str) -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        at = waiting.pop().resolve()
        if at in reached or at.suffix != ".md":
            continue
        reached.add(at)
        waiting += [
            at.parent / link.partition("#")[0] for link in re.findall(r"\]\(([^):\s]+)\)", at.read_text("utf-8"))
        ]
    assert (ROOT / page).resolve() in reached


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_checkout_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:src|tests|docs|lab|bench|examples)/[\w./-]*)`", prose_of(page))
    for path in named:
        if page == "docs/reference-driver.md" and path.startswith("docs/adr/00"):
            continue  # the other project's
        assert (ROOT / path).exists(), f"{page} names {path}"


def test_every_promise_names_a_test_or_says_why_there_is_none() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.*?) \| (.+?) \|$", text_of("docs/guarantees.md"), re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 11))
    for number, _, proof, state in rows:
        assert "tests/" in proof or "not provable yet" in state, number


def test_cases_that_are_named_are_in_the_kit() -> None:
    named = set(re.findall(r"\b([A-E]\.\d+[a-z]?)\b", text_of("docs/guarantees.md")))
    ids = {case.id for case in cases()}
    begun = {re.sub(r"[a-z]$", "", id) for id in ids}
    assert named
    assert named <= ids | begun


def test_the_exit_codes_of_the_manual_are_those_of_the_program() -> None:
    table = "".join(f"| {code} | {meaning} |\n" for code, meaning in MEANINGS)
    assert table in text_of("docs/operating.md")


def test_the_options_of_the_manual_are_those_of_the_worker() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text_of("docs/operating.md"), re.MULTILINE))
    options = WorkerOptions()
    for name in WorkerOptions.__struct_fields__:
        default = getattr(options, name)
        assert rows[name] == (f"{default:,}" if isinstance(default, int) else f"`{default!r}`".replace("'", '"')), name


def test_our_column_of_the_driver_page_names_what_there_is() -> None:
    page = text_of("docs/reference-driver.md")
    for name in re.findall(r"`verbs\.(\w+)", page):
        assert hasattr(verbs, name), name
    for name in ("from_watched", "inline", "with_attach", "process_registry", "change_hub", "awaiter", "await_event"):
        assert name in page
        assert hasattr(ProcessWorkDriver, name)
    fields = re.search(r"`AdmissionReport\(([^)]*)\)`", page)
    assert fields is not None
    assert tuple(fields[1].split(", ")) == ports.AdmissionReport.__struct_fields__


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    records = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", text_of("docs/adr/README.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    assert listed == records


@pytest.mark.parametrize("part", ["**Context.**", "**Decision.**", "**Consequences.**", "**Alternatives.**"])
def test_every_decision_has_its_four_parts(part: str) -> None:
    for path in (DOCS / "adr").glob("[0-9]*.md"):
        assert part in path.read_text("utf-8"), path.name


# --- the glossary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", AVOIDED)
def test_a_word_that_the_glossary_avoids_is_in_no_name_of_ours(word: str) -> None:
    assert [where for where, words in names_given() if word in words] == []


def test_the_words_of_a_name_are_told_apart() -> None:
    given = dict(names_in("class LeaseKeeper:\n    def let_go(self, run_id): kept = 1", "x.py"))
    assert given == {
        "x.py:1 LeaseKeeper": {"lease", "keeper"},
        "x.py:2 let_go": {"let", "go"},
        "x.py:2 self": {"self"},
        "x.py:2 run_id": {"run", "id"},
        "x.py:2 kept": {"kept"},
    }


def names_given() -> Iterator[tuple[str, set[str]]]:
    for path in sorted((ROOT / "src" / "perdure").rglob("*.py")):
        yield from names_in(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())


def names_in(source: str, path: str) -> Iterator[tuple[str, set[str]]]:
    """(place and name, its words) of everything that this source gives a name to."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case _:
                continue
        yield f"{path}:{node.lineno} {name}", set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
