"""perdure explain"""

from __future__ import annotations

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import plain
from perdure.cli.exit_codes import ExitCode
from perdure.cli.surface import Surface, common, run_async


@click.command(
    epilog="""\b
Examples:
  perdure explain order-42
  perdure explain order-42 --json | jq -r .verdict"""
)
@click.argument("process_id", metavar="ID")
@common
def explain(surface: Surface, process_id: str) -> int:
    """Why a process is not running, or who runs it: a verdict, the facts behind it, and what would change it.

    Exits 5 if it needs somebody's attention: left alone it will never end.
    """

    async def explain_it() -> int:
        async with looking(surface.url) as host:
            found = await host.get_handle(await resolve(host, process_id)).explain()
        if surface.json:
            surface.document("explain", **plain(found))
        else:
            facts = [("id", found.process_id), ("verdict", found.verdict.replace("_", " "))]
            facts += [("because", why) for why in found.because]
            facts += [("you can", what) for what in found.you_can]
            surface.facts(facts)
        return ExitCode.REFUSED if found.needs_attention else ExitCode.OK

    return run_async(explain_it)
