"""perdure events"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import event_data, event_text
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import moment, safe
from perdure.model.events import Event


@click.command(
    epilog="""\b
Examples:
  perdure events order-42
  perdure events order-42 -f --json | jq -r .type
  perdure events order-42 --after 7"""
)
@click.argument("process_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until the process has ended.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only events past sequence N.")
@common
def events(surface: Surface, process_id: str, follow: bool, after: int) -> int:
    """The log of one process, in order. With -f --json: one JSON document per line."""

    async def print_them() -> int:
        async with looking(surface.url) as host:
            id = await resolve(host, process_id)
            at, shown = after, []
            try:
                async for event in host.get_handle(id).events(after, follow=follow):
                    at = event.sequence
                    if follow:
                        _print_one(surface, event)
                    else:
                        shown.append(event)
            except asyncio.CancelledError:
                surface.say(f"left at event {at}; go on with --after {at}")
                raise
            if not follow:
                _print_all(surface, id, shown)
        return 0

    return run_async(print_them)


def _print_one(surface: Surface, event: Event) -> None:
    if surface.json:
        surface.json_line(event_data(event))
    elif surface.for_people:
        print(f"{event.sequence:>5}  {moment(event.at_ms)[11:-1]}  {safe(event.type):<24}  {safe(event_text(event))}")
    else:
        print("\t".join(safe(cell) for cell in _cells(event)))
    sys.stdout.flush()


def _print_all(surface: Surface, id: str, shown: Sequence[Event]) -> None:
    if surface.json:
        surface.document("events", process_id=id, events=[event_data(event) for event in shown])
    else:
        surface.rows(("#", "AT", "EVENT", "WHAT"), [_cells(event) for event in shown], styles=("right",))


def _cells(event: Event) -> tuple[str, ...]:
    return str(event.sequence), moment(event.at_ms), event.type, event_text(event)
