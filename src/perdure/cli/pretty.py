"""What a person at a terminal sees. The only module besides the demo's screen that imports rich; loaded on use."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

STATUS_STYLES = {
    "pending": "cyan", "running": "blue", "waiting": "cyan", "completed": "green", "failed": "bold red",
    "cancelled": "yellow", "abandoned": "magenta", "caller_departed": "magenta", "ok": "green", "warn": "yellow",
    "fail": "bold red",
}  # fmt: skip

GAP = "  "
WIDEST = 60
NARROWEST_LAST = 10


def styled(word: str) -> Text:
    """A status word in its colour; the word itself always says it too."""
    return Text(word, style=STATUS_STYLES.get(word.strip("●◐✔✖⊘⚑◌ "), ""))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Columns as wide as their content; the last one takes what is left of the line, and is cut there."""
    console = Console(highlight=False)
    widths = [min(WIDEST, max(cell_len(row[i]) for row in (header, *rows))) for i in range(len(header))]
    widths[-1] = max(NARROWEST_LAST, console.width - sum(widths[:-1]) - len(GAP) * (len(header) - 1))
    for row in (header, *rows) if rows else ():
        line = Text(style="dim" if row is header else "")
        for index, cell in enumerate(row):
            style = styles[index] if index < len(styles) else ""
            text = styled(cell) if style == "status" and row is not header else Text(cell)
            last = index == len(header) - 1
            text.truncate(widths[index], overflow="ellipsis", pad=not last and style != "right")
            if style == "right":
                text.align("right", widths[index])
            line.append_text(text).append("" if last else GAP)
        console.print(line, soft_wrap=True)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), styled(value) if name == "status" else Text(value))
    Console(highlight=False).print(table)


def print_finding(place: str, what: str, why: str, fix: str) -> None:
    from perdure.cli.text import safe

    console = Console(highlight=False)
    console.print(Text(safe(place), style="bold"), Text(safe(what)), soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("  why:", Text(safe(why)))
    table.add_row("  fix:", Text(safe(fix)))
    console.print(table)


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
