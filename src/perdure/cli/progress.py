"""Progress on stderr: a bar for a person, a line now and then for a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LINE_EVERY_S = 5.0


@contextmanager
def progress(stream: TextIO, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Gives a function that is called with how much more is done."""
    if not stream.isatty():
        yield _lines(stream, what, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


def _lines(stream: TextIO, what: str, total: int, unit: str) -> Callable[[int], None]:
    done, told_s = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, told_s
        done += count
        if time.monotonic() - told_s >= LINE_EVERY_S:
            told_s = time.monotonic()
            print(f"{what}: {done:,} of {total:,} {unit}", file=stream, flush=True)

    return advance
