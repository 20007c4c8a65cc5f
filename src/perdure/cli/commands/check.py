"""perdure check"""

from __future__ import annotations

import click
import msgspec

from perdure.cli.checking.findings import Finding
from perdure.cli.checking.sources import check_processes
from perdure.cli.exit_codes import ExitCode
from perdure.cli.hosts import find_host
from perdure.cli.surface import Surface, common
from perdure.cli.text import counted


@click.command(
    epilog="""\b
Examples:
  perdure check shop:host
  perdure check shop:host --json | jq -r '.findings[].fix'"""
)
@click.argument("given", metavar="MODULE:HOST")
@common
def check(surface: Surface, given: str) -> int:
    """Read the code of the processes that MODULE:HOST defines for what a replay would not forgive.

    Found are: steps, starts and waits that are repeated without a key; durable operations in asyncio tasks; times,
    random numbers and UUIDs that are not recorded; handlers that swallow a cancellation; operations that nobody
    awaits. Functions of the same module that are given the context are read too. Opens no database.

    Exits 1 if anything was found.
    """
    processes = find_host(given).processes
    findings, unread = check_processes(processes)
    if surface.json:
        surface.document(
            "check",
            processes=[str(process.definition) for process in processes],
            findings=[msgspec.to_builtins(finding) for finding in findings],
            unread=[one._asdict() for one in unread],
        )
    elif surface.for_people:
        _print_for_people(findings)
    else:
        surface.rows((), [(f"{f.file}:{f.line}", f.rule, f.what, f.why, f.fix) for f in findings])
    for one in unread:
        surface.say(f"not read: {one.process}: {one.why}")
    if not processes:
        surface.say(f"{given} defines no process")
    else:
        surface.say(f"{counted(len(findings), 'finding')} in {counted(len(processes), 'process', 'processes')}")
    return ExitCode.UNEXPECTED if findings else ExitCode.OK


def _print_for_people(findings: list[Finding]) -> None:
    from perdure.cli.pretty import print_finding

    for finding in findings:
        print_finding(f"{finding.file}:{finding.line}", finding.what, finding.why, finding.fix)
