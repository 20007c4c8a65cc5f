"""perdure doctor"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from perdure.cli.access import check_exists, sqlite_path
from perdure.cli.checks import check_store
from perdure.cli.described import plain
from perdure.cli.doctoring.check import Check
from perdure.cli.exit_codes import ExitCode
from perdure.cli.progress import progress
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import counted
from perdure.clock import SystemClock
from perdure.errors import InvalidOption, StoreError, StoreUnavailable
from perdure.ids import SystemIds
from perdure.stores.postgres.url import check_driver, is_postgres, without_password
from perdure.stores.sqlite.inspection import Inspection
from perdure.stores.sqlite.verification import Damage, count_processes, verify


@click.command(
    epilog="""\b
Examples:
  perdure doctor
  perdure doctor --verify
  perdure doctor --db postgresql://db/work
  perdure doctor --json | jq '.checks[] | select(.state != "ok")'"""
)
@click.option(
    "--verify", "verifying", is_flag=True, help="SQLite: read every row: file check, checksums, log against record."
)
@common
def doctor(surface: Surface, verifying: bool) -> int:
    """Check the database and what lives on it. Changes nothing.

    Exits 1 if a check fails, 6 if the database can't be used at all. Warnings don't count.
    """
    if is_postgres(surface.url):
        if verifying:
            raise InvalidOption("--verify", True, "an SQLite database")
        return run_async(lambda: _look_at_postgres(surface))
    path = sqlite_path(surface.url)
    if path is None:
        raise InvalidOption("--db", without_password(surface.url), "an SQLite or PostgreSQL database")
    _must_exist(surface.url)
    checks: list[Check] = []
    for check in check_store(path, SystemClock()):
        checks.append(check)
        _print_one(surface, check)
    damages: list[Damage] = []
    if verifying and not any(check.error is not None for check in checks):
        for check in _verify(surface, path, damages):
            checks.append(check)
            _print_one(surface, check)
    return _conclude(surface, checks, damages)


async def _look_at_postgres(surface: Surface) -> int:
    check_driver(surface.url)
    from perdure.cli.doctoring.postgres import check_store as check_postgres

    checks: list[Check] = []
    async for check in check_postgres(surface.url, SystemClock(), SystemIds()):
        checks.append(check)
        _print_one(surface, check)
    return _conclude(surface, checks, ())


def _conclude(surface: Surface, checks: Sequence[Check], damages: Sequence[Damage]) -> int:
    failed = [check for check in checks if check.state == "fail"]
    if surface.json:
        listed = [{"name": c.name, "state": c.state, "detail": c.detail, "fix": c.fix} for c in checks]
        surface.document("doctor", healthy=not failed, checks=listed, damages=plain(damages))
    else:
        warned = sum(check.state == "warn" for check in checks)
        fine = len(checks) - len(failed) - warned
        surface.say(f"{fine} ok, {counted(warned, 'warning')}, {counted(len(failed), 'failure')}")
    if any(check.error is not None for check in checks):
        return ExitCode.STORE
    return ExitCode.UNEXPECTED if failed else ExitCode.OK


def _must_exist(url: str) -> None:
    """A missing file is told like everywhere else; whatever else is wrong with it is for the checks to name."""
    try:
        check_exists(url)
    except StoreUnavailable:
        raise
    except StoreError:
        return


def _print_one(surface: Surface, check: Check) -> None:
    if surface.json:
        return
    if not surface.for_people:
        surface.rows((), [(check.state, check.name, check.detail, check.fix)])
        return
    from perdure.cli.pretty import print_check

    print_check(check.state, check.name, check.detail, check.fix)


def _verify(surface: Surface, path: Path, damages: list[Damage]) -> Iterator[Check]:
    inspection = Inspection.open(path)
    try:
        problems = inspection.quick_check()
        told = "; ".join(problems[:5])
        yield Check("quick_check", "fail" if problems else "ok", told or "SQLite finds nothing wrong with the file",
                    "Restore it from a backup." if problems else "")  # fmt: skip
        processes = events = 0
        with progress(sys.stderr, "verifying", count_processes(inspection), "processes") as advance:
            for step in verify(inspection):
                processes, events = processes + step.processes, events + step.events
                advance(step.processes)
                damages.extend(step.damages)
        for damage in damages:
            place = (damage.process_id or "-") + (f" event {damage.sequence}" if damage.sequence else "")
            yield Check("damage", "fail", f"{place}: {damage.problem}", "Restore the file from a backup.")
        if not damages:
            read = f"{counted(processes, 'record')} equal their logs, {counted(events, 'event')} as they were written"
            yield Check("verify", "ok", read)
    finally:
        inspection.close()
