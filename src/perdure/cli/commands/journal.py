"""perdure journal"""

from __future__ import annotations

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import entry_data, entry_text
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import moment

WIDEST = 300


@click.command(
    epilog="""\b
Examples:
  perdure journal order-42
  perdure journal order-42 --json | jq '.entries[] | {key, value}'"""
)
@click.argument("process_id", metavar="ID")
@common
def journal(surface: Surface, process_id: str) -> int:
    """What the code of a process has been given so far: steps, timers, waits, races, children, versions.

    A replay reads these and does none of it again. `perdure events` prints the whole log.
    """

    async def print_it() -> int:
        async with looking(surface.url) as host:
            id = await resolve(host, process_id)
            entries = await host.get_handle(id).journal()
        if surface.json:
            surface.document("journal", process_id=id, entries=[entry_data(entry) for entry in entries])
            return 0
        width = WIDEST if surface.for_people else None
        surface.rows(
            ("#", "AT", "ATTEMPT", "KIND", "KEY", "STATUS", "WHAT"),
            [
                (str(e.sequence), moment(e.at_ms), str(e.attempt), e.kind, e.key, e.status, entry_text(e, width))
                for e in entries
            ],
            styles=("right", "", "right"),
        )
        if not entries:
            surface.say("nothing durable was done inside it so far; `perdure events` shows its log")
        return 0

    return run_async(print_it)
