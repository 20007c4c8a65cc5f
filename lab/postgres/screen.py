"""What a run of the PostgreSQL lab shows: a live line while it goes on, a table at its end, every breach's story."""

from __future__ import annotations

import asyncio

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.postgres.run import PostgresLab, PostgresReport, Progress

TELLS_EVERY_S = 10.0
"""Where nobody watches, a line is written so often."""
STORIES = 10
"""How many breaches are told with all that is known of their processes."""


def run_shown(lab: PostgresLab, seconds: float) -> PostgresReport:
    """Run the lab, and show where it is and what it found on standard error."""
    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        told_s = -TELLS_EVERY_S

        def watch(progress: Progress) -> None:
            nonlocal told_s
            line = line_of(progress, seconds)
            if console.is_terminal:
                live.update(Text(line))
            elif progress.seconds - told_s >= TELLS_EVERY_S:
                told_s = progress.seconds
                console.print(line, highlight=False, soft_wrap=True)

        lab.watch = watch
        report = asyncio.run(lab.run(seconds))
    console.print(table_of(report))
    return report


def line_of(progress: Progress, seconds: float) -> str:
    counts = progress.counts
    return (
        f"{progress.phase}: {progress.seconds:.0f} of {seconds:.0f} s, {counts.get('started', 0)} started, "
        f"{counts.get('signals', 0)} signals, {counts.get('ends seen', 0)} ends seen, {progress.waiting} unanswered, "
        f"{counts.get('asked again', 0)} asked again, fault {progress.faults}: {progress.fault}"
    )


def table_of(report: PostgresReport) -> Table:
    table = Table(title=f"PostgreSQL lab, seed {report.seed}, {report.seconds:.0f} s of load and faults")
    table.add_column("what")
    table.add_column("how many", justify="right")
    table.add_column("of which")
    for what, counted in (
        ("faults", report.faults),
        ("processes", report.statuses),
        ("taken over", report.takeovers),
        ("troubles that workers reported", report.troubles),
    ):
        table.add_row(what, str(sum(counted.values())), ", ".join(f"{n} {name}" for name, n in sorted(counted.items())))
    table.add_row("starts acknowledged", str(report.started), f"{report.started_unknowing} more got no answer")
    table.add_row("signals acknowledged", str(report.signals), "")
    table.add_row("runs of code", str(report.runs), f"{report.never_entered} processes were never entered")
    table.add_row("steps begun", str(report.steps), f"{report.steps_begun_again} again")
    table.add_row("breaches", str(len(report.breaches)), f"drained in {report.drained_in_s} s")
    return table


def tell_breaches(lab: PostgresLab) -> str:
    """The seed, the plan so far, every breach, and for the first few all that is known of their processes."""
    lines = [f"seed {lab.seed}", "the plan so far, by boot time in ms:"]
    lines += [f"  {began_ms} {msgspec.json.encode(fault).decode()}" for began_ms, fault in lab.plan]
    lines += [f"{len(lab.found)} breaches:", *(f"  {breach}" for breach in lab.found)]
    told = list(dict.fromkeys(breach.process_id for breach in lab.found if breach.process_id is not None))
    for process_id in told[:STORIES]:
        lines += [f"all that is known of {process_id}:", *(f"  {line}" for line in lab.story_of(process_id))]
    return "\n".join(lines)
