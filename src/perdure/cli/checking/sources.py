"""Where the code of a host's processes is written: the files, and the functions in each that are processes."""

from __future__ import annotations

import inspect
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from perdure.cli.checking.analysis import Entry, NotFound, findings_in
from perdure.cli.checking.findings import Finding
from perdure.engines.python.definitions import Process


class Unread(NamedTuple):
    """A process whose code could not be read, and why."""

    process: str
    why: str


def check_processes(processes: Iterable[Process[Any, Any]]) -> tuple[list[Finding], list[Unread]]:
    """What is to be said of these processes' code, in order of files and lines; and those that could not be read.
    Files are named from the working directory, if they are below it."""
    by_file: dict[Path, list[Entry]] = {}
    unread: list[Unread] = []
    for process in processes:
        place = _place_of(process)
        if isinstance(place, Unread):
            unread.append(place)
        else:
            by_file.setdefault(place[0], []).append(place[1])
    findings: list[Finding] = []
    for path, entries in sorted(by_file.items()):
        try:
            with tokenize.open(path) as file:
                findings += findings_in(file.read(), _shown(path), entries)
        except (OSError, SyntaxError, NotFound) as error:
            why = f"{_shown(path)} is not what was imported: {error}"
            unread += [Unread(entry.process, why) for entry in entries]
    return findings, unread


def _place_of(process: Process[Any, Any]) -> tuple[Path, Entry] | Unread:
    name = str(process.definition)
    function = inspect.unwrap(process.function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    path = None if code is None else code.co_filename
    if code is None or not Path(path or "").is_file():
        return Unread(name, f"its source can't be found ({path or type(function).__name__})")
    context = next(iter(inspect.signature(function).parameters))
    return Path(code.co_filename), Entry(name, code.co_firstlineno, context, not process.code.is_async)


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
