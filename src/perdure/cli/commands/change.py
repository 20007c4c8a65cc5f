"""perdure cancel, perdure abandon"""

from __future__ import annotations

import getpass
import os

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import record_data
from perdure.cli.surface import Surface, common, run_async
from perdure.errors import ProcessAlreadyTerminal
from perdure.model.record import ProcessRecord


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return f"uid {os.getuid()}"


@click.command(
    epilog="""\b
Example:
  perdure cancel order-42 --reason "customer called" """
)
@click.argument("process_id", metavar="ID")
@click.option("--reason", default="cancelled from the command line", show_default=True, help="Why; kept in the log.")
@click.option("--by", help="Who asks; kept in the log. [default: your user name]")
@common
def cancel(surface: Surface, process_id: str, reason: str, by: str | None) -> int:
    """Ask a process to stop.

    What nobody runs is cancelled at once; running code is told, and ends when it sees it. Asking twice changes nothing.
    """

    async def cancel_it() -> int:
        async with looking(surface.url) as host:
            handle = host.get_handle(await resolve(host, process_id))
            record = await handle.cancel(reason, by=by or _me())
        return _report(surface, "cancel", record, "cancelled", "its owner is told and ends it; `perdure wait` waits")

    return run_async(cancel_it)


@click.command(
    epilog="""\b
Example:
  perdure abandon import-7 --reason "the machine is gone" """
)
@click.argument("process_id", metavar="ID")
@click.option("--reason", default="abandoned from the command line", show_default=True, help="Why; kept in the log.")
@click.option("--by", help="Who decides; kept in the log. [default: your user name]")
@common
def abandon(surface: Surface, process_id: str, reason: str, by: str | None) -> int:
    """Give a process up: the end for owner-bound work whose owner is gone, and for a departed caller's.

    At once if nobody holds a live lease on it, else as soon as that lease has lapsed. The first request stands.
    """

    async def abandon_it() -> int:
        async with looking(surface.url) as host:
            handle = host.get_handle(await resolve(host, process_id))
            record = await handle.abandon(by=by or _me(), reason=reason)
        return _report(surface, "abandon", record, "abandoned", "somebody holds a live lease; it ends once that lapses")

    return run_async(abandon_it)


def _report(surface: Surface, verb: str, record: ProcessRecord, wanted: str, pending: str) -> int:
    """Print where it stands now; a process that has ended otherwise is a refusal."""
    if record.is_terminal and record.status != wanted:
        raise ProcessAlreadyTerminal(record.id, record.status, verb)
    if surface.json:
        surface.document(verb, done=record.is_terminal, **record_data(record))
    else:
        surface.rows(("ID", "STATUS"), [(record.id, record.status)], styles=("", "status"))
        if not record.is_terminal:
            surface.say(f"requested: {pending}")
    return 0
