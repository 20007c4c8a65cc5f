"""What a person at a terminal sees. The only module besides the demo's screen that imports rich; loaded on use."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

STATUS_STYLES = {
    "pending": "cyan", "running": "blue", "waiting": "cyan", "completed": "green", "failed": "bold red",
    "cancelled": "yellow", "abandoned": "magenta", "caller_departed": "magenta", "ok": "green", "warn": "yellow",
    "fail": "bold red",
}  # fmt: skip


def styled(word: str) -> Text:
    """A status word in its colour; the word itself always says it too."""
    return Text(word, style=STATUS_STYLES.get(word.strip("●◐✔✖⊘⚑◌ "), ""))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        style = styles[index] if index < len(styles) else ""
        right, first, last = style == "right", index == 0, index == len(header) - 1
        table.add_column(
            name, justify="right" if right else "left", no_wrap=not last, overflow="ellipsis" if last else "fold",
            ratio=1 if last else None, min_width=8 if first else None,
        )  # fmt: skip
    for row in rows:
        table.add_row(*(styled(cell) if _is_status(styles, i) else Text(cell) for i, cell in enumerate(row)))
    Console(highlight=False).print(table)


def _is_status(styles: Sequence[str], index: int) -> bool:
    return index < len(styles) and styles[index] == "status"


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), styled(value) if name == "status" else Text(value))
    Console(highlight=False).print(table)


def print_check(state: str, name: str, detail: str, fix: str) -> None:
    from perdure.cli.text import safe

    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=4)
    table.add_column(width=11, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(styled(state), Text(name), Text(safe(detail)))
    if fix:
        table.add_row("", "", Text(f"fix: {safe(fix)}", style="dim"))
    console.print(table)
