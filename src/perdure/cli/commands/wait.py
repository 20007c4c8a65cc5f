"""perdure wait"""

from __future__ import annotations

import asyncio
from typing import Any

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import outcome_text, plain
from perdure.cli.exit_codes import ExitCode, of_error, of_outcome
from perdure.cli.surface import Duration, Surface, common, run_async
from perdure.errors import CallerDeparted
from perdure.host import Host
from perdure.model.outcomes import Failed, ProcessAwaitOutput


@click.command(
    epilog="""\b
Examples:
  perdure wait order-42
  perdure wait order-42 order-43 --timeout 5m && echo both completed"""
)
@click.argument("process_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", type=Duration(), metavar="TIME", help="Give up after this long: 10s, 5m, 2h.")
@common
def wait(surface: Surface, process_ids: tuple[str, ...], timeout: float | None) -> int:
    """Wait until every ID has ended, and print how.

    The exit code is the worst of all: 0 completed, 10 failed, 11 cancelled, 12 abandoned, 13 caller departed, 124 not
    ended within --timeout (the processes themselves go on).
    """

    async def wait_for_them() -> int:
        async with looking(surface.url) as host:
            ids = list(dict.fromkeys([await resolve(host, given) for given in process_ids]))
            return await report_ends(surface, host, ids, timeout, "wait")

    return run_async(wait_for_them)


async def report_ends(surface: Surface, host: Host, ids: list[str], timeout: float | None, schema: str) -> int:
    """Wait for these processes, print how each ended, and return the worst exit code."""
    waits = {id: asyncio.ensure_future(host.get_handle(id).outcome()) for id in ids}
    done, pending = await asyncio.wait(waits.values(), timeout=timeout)
    for unfinished in pending:
        unfinished.cancel()
    await asyncio.wait(waits.values())
    ends = {id: _end_of(waits[id], waits[id] in done) for id in ids}
    if surface.json:
        surface.document(schema, processes=[{"id": id, **data} for id, (data, _, _) in ends.items()])
    else:
        rows = [(id, data["status"], text) for id, (data, text, _) in ends.items()]
        surface.rows(("ID", "STATUS", "RESULT"), rows, styles=("", "status"))
    if pending:
        surface.say(f"{len(pending)} of {len(ids)} have not ended within {timeout:g} s; they go on")
    return max(code for _, _, code in ends.values())


def _end_of(waited: asyncio.Future[ProcessAwaitOutput], in_time: bool) -> tuple[dict[str, Any], str, ExitCode]:
    if not in_time:
        return {"status": "timed_out", "outcome": None}, "", ExitCode.TIMEOUT
    error = waited.exception()
    if isinstance(error, CallerDeparted):
        return {"status": "caller_departed", "outcome": None}, str(error), of_error(error)
    outcome = waited.result()
    data = plain(outcome)
    if isinstance(outcome, Failed):
        data["error"].pop("traceback", None)
    return {"status": data.pop("type"), "outcome": data}, outcome_text(outcome), of_outcome(outcome)
