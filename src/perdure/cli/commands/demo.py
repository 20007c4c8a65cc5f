"""perdure demo"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import click

from perdure.cli.access import sqlite_path
from perdure.cli.demo.run import Demo, Result
from perdure.cli.demo.screen import make_screen
from perdure.cli.exit_codes import ExitCode
from perdure.cli.logs import log_to_stderr
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import counted, size
from perdure.errors import InvalidOption
from perdure.stores.postgres.url import without_password


@click.command(
    epilog="""\b
Examples:
  perdure demo                     fingerprint the standard library
  perdure demo ~/photos --db p.db  another folder, another database
  perdure demo . --slow 200        200 ms more per folder: time to try
                                   Ctrl-C, or kill -9 from elsewhere
  perdure ls --definition demo-fingerprint -a   what it left behind"""
)
@click.argument("path", required=False, metavar="[PATH]")
@click.option("--slow", "slow_ms", type=click.IntRange(0, 3_600_000), default=0, metavar="MS", help="Sleep per folder.")
@click.option("--concurrency", type=click.IntRange(1, 1_000), metavar="N", help="Folders at once. [32]")
@common
def demo(surface: Surface, path: str | None, slow_ms: int, concurrency: int | None) -> int:
    """Fingerprint (SHA-256) every file below PATH, with one durable process per folder.

    PATH is Python's standard library unless you name another folder. Kill it however you like, kill -9 included, and
    run it again: it takes over at once, says what it need not do again, and checks the whole against an independent
    walk. A folder that has changed since is done anew.
    """
    root = _root(path)
    log_to_stderr()
    run = Demo(
        root,
        _own_files(surface.url),
        surface.url,
        make_screen(),
        concurrency=concurrency or 32,
        slow_ms=slow_ms,
    )
    found: list[Result] = []

    async def run_it() -> int:
        found.append(await run.run())
        return ExitCode.OK if found[0].matches else ExitCode.UNEXPECTED

    code = run_async(run_it)
    _report(surface, root, found[0])
    return code


def _root(path: str | None) -> bytes:
    """The folder itself, links resolved; raises InvalidOption for what is no folder that can be listed."""
    given = path or sysconfig.get_path("stdlib")
    root = os.fsencode(os.path.realpath(given))
    try:
        os.scandir(root).close()
    except OSError as error:
        raise InvalidOption("PATH", given, f"a folder that can be listed ({error.strerror})") from error
    return root


def _own_files(url: str) -> dict[bytes, tuple[str, ...]]:
    """The database's own files change while it works: they are passed over where they lie."""
    path = sqlite_path(url)
    if path is None:
        return {}
    folder, name = os.path.realpath(path.parent), Path(path).name
    return {os.fsencode(folder): tuple(f"{name}{end}" for end in ("", "-journal", "-shm", "-wal", ".owners"))}


def _report(surface: Surface, root: bytes, result: Result) -> None:
    origins = result.origins
    done_elsewhere = max(0, origins["begun_before"] - result.taken_over - result.given_back)
    rate = result.files_now / result.seconds if result.files_now else 0.0
    if surface.json:
        surface.document(
            "demo",
            path=os.fsdecode(root),
            database=without_password(surface.url),
            folders={
                "total": result.folders,
                "already_done": origins["done_before"],
                "taken_over": result.taken_over,
                "given_back": result.given_back,
                "queued_before": origins["queued_before"],
                "by_others": done_elsewhere,
                "new": origins["new"],
            },
            first_takeover_s=result.first_takeover_s,
            files=result.files, bytes=result.bytes, links=result.links, others=result.others,
            unreadable=result.unreadable, files_now=result.files_now, bytes_now=result.bytes_now,
            seconds=round(result.seconds, 3), files_per_second=round(rate, 1), rounds=result.rounds,
            fingerprint=result.fingerprint, check=result.check, matches=result.matches,
        )  # fmt: skip
        return
    parts = (
        (origins["done_before"], "already done by earlier runs"),
        (result.taken_over, "taken over from a dead run"),
        (result.given_back, "given back by a stopped run"),
        (done_elsewhere, "done by another run"),
        (origins["queued_before"], "queued by an earlier run"),
        (origins["new"], "new"),
    )
    beside = [
        counted(count, noun)
        for count, noun in ((result.links, "link"), (result.others, "special file"), (result.unreadable, "unreadable"))
        if count
    ]
    speed = f"{rate:,.0f} files/s, {size(result.bytes_now / result.seconds)}/s" if rate else "nothing had to be read"
    facts = [
        ("path", os.fsdecode(root)),
        ("folders", f"{result.folders:,}: " + ", ".join(f"{count:,} {what}" for count, what in parts if count)),
        ("files", f"{result.files:,}, {size(result.bytes)}" + "".join(f", {text}" for text in beside)),
        ("speed", f"{speed} ({result.seconds:.1f} s)"),
        ("sha256", result.fingerprint),
        ("check", "an independent walk finds the same" if result.matches else f"DIFFERS: {result.check}"),
        ("kept in", f"{without_password(surface.url)}: perdure ls -a, perdure doctor"),
    ]
    surface.facts(facts)
