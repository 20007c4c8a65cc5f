"""perdure run"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import click
import msgspec

from perdure.cli.described import record_data
from perdure.cli.exit_codes import of_outcome
from perdure.cli.logs import log_to_stderr
from perdure.cli.surface import Duration, Surface, common, run_async
from perdure.cli.text import safe
from perdure.engines.command.request import CommandResult
from perdure.errors import RegistrationConflict
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.ids import SystemIds, check_process_id
from perdure.model.outcomes import Failed, ProcessAwaitOutput
from perdure.runtime.options import WorkerOptions

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What a shell would exit with."""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  perdure run -- make -j4 all
  perdure run --id backup-2026-11-24 -- rsync -a /home /backup
  perdure --db work.db run --cwd /srv/app -- ./migrate --check""",
)
@click.option("--id", "process_id", metavar="ID", help="Its id. [new]")
@click.option("--cwd", metavar="DIR", help="Where it runs. [here]")
@click.option("--grace", type=Duration(), default=10.0, metavar="TIME", help="From SIGTERM to SIGKILL. [10s]")
@click.option("--deadline", type=Duration(), metavar="TIME", help="It is ended when this has passed.")
@click.argument("argv", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@common
def run(
    surface: Surface,
    process_id: str | None,
    cwd: str | None,
    grace: float,
    deadline: float | None,
    argv: tuple[str, ...],
) -> int:
    """Run a command as a process until it ends, and print what it writes. Nothing of it is left then.

    The exit code is the command's own; 128 + N if signal N killed it, 127 if there is no such program, 126 if it can't
    be executed; else that of the table (cancelled, abandoned, …). Ctrl-C cancels it.
    """
    id = check_process_id(process_id or SystemIds().process_id())
    queue = f"run-{SystemIds().token()}"  # of this invocation alone: nothing else that waits is run here
    host = Host(surface.url, options=WorkerOptions(concurrency=1, queues=(queue,)))
    log_to_stderr()

    where = os.path.abspath(cwd or ".")

    async def run_it() -> int:
        async with host:
            try:
                handle = await host.command(
                    argv, id=id, cwd=where, grace=grace, deadline=deadline or None, queue=queue
                )  # fmt: skip
            except RegistrationConflict as conflict:
                if conflict.differing == ("queue",):
                    raise click.UsageError(f"process {id!r} was run before: `perdure show {id}` says how") from None
                raise
            try:
                await _print_output(surface, handle)
            except asyncio.CancelledError:
                await handle.cancel("perdure run was interrupted")
                await handle.outcome()
                raise
            if surface.json:
                surface.document("run", **record_data(await handle.record()))
            return _exit_code(surface, await handle.outcome())

    return run_async(run_it)


async def _print_output(surface: Surface, handle: Handle[CommandResult]) -> None:
    async for event in handle.events():
        if event.type != "output":
            continue
        said = msgspec.json.decode(event.payload)
        to_errors = surface.json or said["stream"] == "stderr"
        for line in said["lines"]:
            print(safe(line), file=sys.stderr if to_errors else sys.stdout)
        (sys.stderr if to_errors else sys.stdout).flush()
        if "bound" in said:
            surface.say(f"(output beyond {said['bound']} is not stored, nor shown)")


def _exit_code(surface: Surface, outcome: ProcessAwaitOutput) -> int:
    if not isinstance(outcome, Failed):
        return of_outcome(outcome)
    kind, _, detail = (outcome.error.code or "").partition(":")
    if kind == "exit":
        return int(detail)
    surface.say(f"perdure run: {outcome.error.message.splitlines()[0]}")
    match kind:
        case "signal":
            return 128 + signal.Signals[detail].value if detail in signal.Signals.__members__ else 128
        case "not_found":
            return NOT_FOUND
        case "not_executable":
            return NOT_EXECUTABLE
        case _:
            return of_outcome(outcome)
