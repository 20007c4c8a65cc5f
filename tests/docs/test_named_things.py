"""Lists in the documents name all that there is, and nothing else: tables, threads, commands."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.cli.main import COMMANDS
from perdure.stores.sqlite.guest import own_tables

ROOT = Path(__file__).parents[2]


def names_after(words: str, page: str) -> set[str]:
    """What stands in backquotes from these words to the end of the sentence's list."""
    found = re.search(re.escape(words) + r"((?:[\s,]|and|`\w+`)+)", (ROOT / page).read_text("utf-8"))
    assert found is not None
    return set(re.findall(r"`(\w+)`", found[1]))


def test_the_page_on_transactional_steps_names_every_table_of_ours() -> None:
    assert names_after("Perdure's own are named", "docs/durable.md") == own_tables()


def test_the_changelog_names_every_command() -> None:
    assert names_after("- The command line:", "CHANGELOG.md") == COMMANDS.keys() - {"help"}


def test_the_table_of_threads_names_every_thread_that_is_started() -> None:
    started = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(
            r'(?:Thread\(.*name=|thread_name_prefix=|start_thread\(.*, )"(perdure-[\w-]+)"', path.read_text("utf-8")
        )
    }
    rows = re.findall(
        r"^\| `(perdure-[\w-]+?)(?:_…)?`", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE
    )
    assert started == set(rows)
    assert len(started) >= 7
