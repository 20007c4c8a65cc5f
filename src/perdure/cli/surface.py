"""What every command has in common: --db and --json, the way to stdout and stderr, and one event loop run."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click

from perdure.cli.text import json_text, safe

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL = "sqlite:///perdure.db"
URL_VARIABLE = "PERDURE_URL"


class Surface:
    """One invocation: which database was asked for, and how answers are given. stdout is data, stderr narration."""

    def __init__(self, db: str | None, as_json: bool) -> None:
        self.given_url = None if db is None else as_url(db)
        self.json = as_json

    @property
    def url(self) -> str:
        return self.given_url or DEFAULT_URL

    @property
    def for_people(self) -> bool:
        """Whether stdout is a terminal and nobody asked for JSON: only then is rich used, and text cut to fit."""
        return not self.json and sys.stdout.isatty()

    def document(self, schema: str, **content: Any) -> None:
        """The one JSON document of a command."""
        print(json_text({"schema": f"perdure.{schema}/1", **content}, indent=2 if sys.stdout.isatty() else None))

    def json_line(self, content: dict[str, Any]) -> None:
        print(json_text(content), flush=True)

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Sequence[str] = ()) -> None:
        """Rows of plain text: tab-separated in a pipe, with nothing cut; aligned under a header on a terminal."""
        if not self.for_people:
            for row in rows:
                print("\t".join(safe(cell) for cell in row))
            return
        from perdure.cli.pretty import print_table

        print_table(header, [[safe(cell) for cell in row] for row in rows], styles)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Name and value, a line each; in a pipe tab-separated."""
        if not self.for_people:
            self.rows((), facts)
            return
        from perdure.cli.pretty import print_facts

        print_facts([(name, safe(value)) for name, value in facts])

    @staticmethod
    def say(text: str) -> None:
        """Narration: what happens, for whoever watches."""
        print(safe(text), file=sys.stderr, flush=True)


def as_url(given: str) -> str:
    """A database URL; a bare path means an SQLite file."""
    return given if "://" in given or given == "memory:" else f"sqlite:///{given}"


def common(function: F) -> F:
    """Give a command its --db and --json and hand it a Surface as first argument. Either may stand before the
    command's name too; a flag beats the environment."""

    @click.option(
        "--db", metavar="URL",
        help=f"Database: sqlite:///PATH, or just a path. [env: {URL_VARIABLE}; default: {DEFAULT_URL}]",
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @functools.wraps(function)
    def with_surface(db: str | None, as_json: bool, **options: Any) -> Any:
        before: dict[str, Any] = click.get_current_context().find_root().obj or {}
        chosen = db or before.get("db") or os.environ.get(URL_VARIABLE) or None
        return function(Surface(chosen, as_json or bool(before.get("as_json"))), **options)

    return with_surface  # type: ignore[return-value]  # click calls it with the same options


class Signalled(Exception):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_async(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a command's coroutine. SIGINT and SIGTERM cancel it, so that what is open is closed; then Signalled is
    raised."""
    received: list[int] = []

    async def under_signals() -> int:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def end(number: int) -> None:
            if received:
                os._exit(128 + number)  # asked twice: whoever cleans up takes too long
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
        return await main()

    try:
        return asyncio.run(under_signals())
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise Signalled(received[0] if received else signal.SIGINT) from None


class Duration(click.ParamType[float]):
    """Seconds, or a number with ms, s, m, h or d."""

    name = "duration"
    UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        number, factor = next(((text.removesuffix(u), f) for u, f in self.UNITS if text.endswith(u)), (text, 1.0))
        try:
            seconds = float(number) * factor
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 3_200_000_000:
            self.fail(f"{value!r} is no duration: a number of seconds, or 500ms, 10s, 5m, 2h, 1d", param, ctx)
        return seconds
