"""perdure ls"""

from __future__ import annotations

import click

from perdure.cli.access import looking
from perdure.cli.described import note, record_data, since, status_text
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import counted, moment
from perdure.model.queries import LARGEST_PAGE, Filter, Page
from perdure.model.record import LIVE, STATUSES, ProcessRecord, Status

LIVING: tuple[Status, ...] = tuple(s for s in STATUSES if s in LIVE or s == "caller_departed")


@click.command(
    epilog="""\b
Examples:
  perdure ls                          what lives
  perdure ls -a -n 0                  everything
  perdure ls -s failed -s abandoned   what went wrong
  perdure ls --json | jq -r '.processes[].id'"""
)
@click.option("-a", "--all", "everything", is_flag=True, help="Ended processes too.")
@click.option("-s", "--status", "statuses", multiple=True, type=click.Choice(STATUSES), metavar="STATUS",
              help="Only these; repeatable: " + ", ".join(STATUSES) + ".")  # fmt: skip
@click.option("--definition", metavar="NAME", help="Only processes of this definition.")
@click.option("--queue", metavar="NAME", help="Only processes of this queue.")
@click.option("--prefix", metavar="TEXT", help="Only ids that begin so.")
@click.option("-n", "--limit", type=click.IntRange(0), default=100, show_default=True, help="At most; 0: all.")
@click.option("--after", metavar="ID", help="Go on after this id.")
@common
def ls(
    surface: Surface,
    everything: bool,
    statuses: tuple[Status, ...],
    definition: str | None,
    queue: str | None,
    prefix: str | None,
    limit: int,
    after: str | None,
) -> int:
    """List processes in order of id: the live ones, or all with -a.

    In a pipe: id, definition, status, attempt, created, note; tab-separated, nothing cut.
    """
    chosen = statuses or (() if everything else LIVING)
    filter = Filter(statuses=chosen, definition=definition, queue=queue, id_prefix=prefix)

    async def list_them() -> int:
        async with looking(surface.url) as host:
            records: list[ProcessRecord] = []
            more, at = True, after
            while more and (limit == 0 or len(records) < limit):
                size = LARGEST_PAGE if limit == 0 else min(LARGEST_PAGE, limit - len(records))
                page = await host.list(filter, Page(limit=size, after_id=at))
                records.extend(page.records)
                more, at = page.more, page.records[-1].id if page.records else at
            ended = 0 if records or chosen == () else await host.registry.count()
            _print(surface, records, host.registry.now().wall_ms)
            if surface.json:
                surface.document("ls", processes=[record_data(r) for r in records], more=more, after=at)
            elif more:
                surface.say(f"{counted(len(records), 'process', 'processes')} shown, there are more: --after {at}")
            elif not records:
                surface.say("none live" if chosen == LIVING else "none match")
                if ended:
                    surface.say(f"`perdure ls -a` shows all {ended:,}")
        return 0

    return run_async(list_them)


def _print(surface: Surface, records: list[ProcessRecord], now_ms: int) -> None:
    if surface.json:
        return
    if not surface.for_people:
        surface.rows((), [
            (r.id, str(r.registration.definition), r.status, str(r.attempt), moment(r.state.created_at_ms),
             note(r, now_ms))
            for r in records
        ])  # fmt: skip
    elif records:
        rows = [
            (r.id, r.registration.definition.name, status_text(r), since(r, now_ms), str(r.attempt), note(r, now_ms))
            for r in records
        ]
        surface.rows(("ID", "DEFINITION", "STATUS", "FOR", "TRY", "NOTE"), rows, styles=("", "", "status", "", "right"))
