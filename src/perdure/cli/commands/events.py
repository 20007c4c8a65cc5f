"""perdure events"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import chunk_data, chunk_text, event_data, event_text, plain, progress_text
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import moment, safe
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.model.events import Event

LIVE, PROGRESS = "~", "%"
"""What stands in the place of a sequence where something is not in the log."""


@click.command(
    epilog="""\b
Examples:
  perdure events order-42
  perdure events order-42 -f --json | jq -r .type
  perdure events agent-7 --live
  perdure events order-42 --after 7"""
)
@click.argument("process_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until the process has ended.")
@click.option(
    "--live", is_flag=True,
    help=f"Follow, with live output ({LIVE}) and progress ({PROGRESS}) as they come: what is not in the log.",
)  # fmt: skip
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only events past sequence N.")
@common
def events(surface: Surface, process_id: str, follow: bool, live: bool, after: int) -> int:
    """The log of one process, in order. With -f --json: one JSON document per line."""

    async def print_them() -> int:
        async with looking(surface.url) as host:
            id = await resolve(host, process_id)
            handle = host.get_handle(id)
            if live:
                shown = (
                    _follow(surface, handle, after),
                    _show_output(surface, host, handle),
                    _show_progress(surface, handle),
                )
                await _all_of(*shown)
            elif follow:
                await _follow(surface, handle, after)
            else:
                _print_all(surface, id, [event async for event in handle.events(after, follow=False)])
        return 0

    return run_async(print_them)


async def _all_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Do them at once; if one fails, the others end and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _follow(surface: Surface, handle: Handle[Any], after: int) -> None:
    at = after
    try:
        async for event in handle.events(after):
            at = event.sequence
            if surface.json:
                surface.json_line(event_data(event))
            else:
                _print_line(surface, str(event.sequence), event.at_ms, event.type, event_text(event))
    except asyncio.CancelledError:
        surface.say(f"left at event {at}; go on with --after {at}")
        raise


async def _show_output(surface: Surface, host: Host, handle: Handle[Any]) -> None:
    async for chunk in handle.follow():
        if surface.json:
            surface.json_line(chunk_data(chunk))
        else:
            _print_line(surface, LIVE, host.registry.now().wall_ms, chunk.channel, chunk_text(chunk))


async def _show_progress(surface: Surface, handle: Handle[Any]) -> None:
    async for progress in handle.follow_progress():
        if surface.json:
            surface.json_line({"process_id": handle.id, "progress": plain(progress)})
        else:
            _print_line(surface, PROGRESS, progress.at_ms, "progress", progress_text(progress))


def _print_line(surface: Surface, mark: str, at_ms: int, what: str, text: str) -> None:
    if surface.for_people:
        print(f"{mark:>5}  {moment(at_ms)[11:-1]}  {safe(what):<24}  {safe(text)}")
    else:
        print("\t".join(safe(cell) for cell in (mark, moment(at_ms), what, text)))
    sys.stdout.flush()


def _print_all(surface: Surface, id: str, shown: Sequence[Event]) -> None:
    if surface.json:
        surface.document("events", process_id=id, events=[event_data(event) for event in shown])
    else:
        cells = [(str(event.sequence), moment(event.at_ms), event.type, event_text(event)) for event in shown]
        surface.rows(("#", "AT", "EVENT", "WHAT"), cells, styles=("right",))
