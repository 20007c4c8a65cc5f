"""perdure start"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from perdure import canonical
from perdure.cli.commands.wait import report_ends
from perdure.cli.described import record_data
from perdure.cli.hosts import find_host
from perdure.cli.surface import Duration, Surface, common, run_async
from perdure.engines.python.definitions import Process
from perdure.errors import InvalidOption, InvalidPayload
from perdure.host import Host
from perdure.ids import check_process_id

LARGEST_INPUT_BYTES = 8 * 1024 * 1024


@click.command(
    epilog="""\b
Examples:
  perdure start shop:host fulfil --input '{"sku": "mug"}' --id order-42
  echo '"world"' | perdure start shop:host greet --input - --wait
  perdure start shop:host report --input @report.json --delay 10m"""
)
@click.argument("given", metavar="MODULE:HOST")
@click.argument("name", metavar="NAME")
@click.option("--input", "text", metavar="JSON|-|@FILE", help="The input value: JSON, - for stdin, @FILE for a file.")
@click.option("--id", "process_id", metavar="ID", help="Its id: the same id and content is the same process. [new]")
@click.option("--delay", type=Duration(), default=0.0, metavar="TIME", help="Run it no sooner than then: 10s, 5m, 2h.")
@click.option("--wait", "waiting", is_flag=True, help="Wait for its end; the exit code says how it ended.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="With --wait: how long at most.")
@common
def start(
    surface: Surface,
    given: str,
    name: str,
    text: str | None,
    process_id: str | None,
    delay: float,
    waiting: bool,
    timeout: float | None,
) -> int:
    """Start the process NAME that MODULE:HOST defines. A worker runs it: `perdure worker MODULE:HOST`.

    Prints its id. Starting again with the same --id and content is the same process, never a second run.
    """
    if timeout is not None and not waiting:
        raise click.UsageError("--timeout needs --wait")
    defining = find_host(given)
    process = defining.find_process(name)
    value = _value(process, text)
    if process_id is not None:
        check_process_id(process_id)
    host = Host(surface.given_url or defining.url, work=False)
    host.add(process)

    async def start_it() -> int:
        async with host:
            handle = await host.start(process, value, id=process_id, delay=delay or None)
            if not waiting:
                if surface.json:
                    surface.document("start", **record_data(await handle.record()))
                else:
                    surface.rows(("ID",), [(handle.id,)])
                return 0
            surface.say(f"started {handle.id}; waiting for a worker to finish it (perdure worker {given})")
            return await report_ends(surface, host, [handle.id], timeout, "start")

    return run_async(start_it)


def _value(process: Process[Any, Any], text: str | None) -> Any:
    """The typed input value; raises InvalidPayload with the path of what doesn't fit."""
    if process.input_type is None:
        if text is not None:
            raise InvalidOption("--input", text, f"none: {process.name} takes no input")
        return None
    if text is None:
        annotation = process.input_type.annotation
        taken = getattr(annotation, "__name__", annotation)
        raise click.UsageError(f"{process.name} takes a value of type {taken}: give it as --input JSON, -, or @FILE")
    raw = _read(text)
    try:
        return process.input_type.decode(canonical.canonicalize(raw))
    except InvalidPayload as error:
        if "not JSON" in error.problem:
            hint = "JSON; a text needs its quotes: '\"world\"'"
            raise InvalidPayload("--input", error.problem, hint) from None
        raise


def _read(text: str) -> bytes:
    if text != "-" and not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        if text == "-":
            raw = sys.stdin.buffer.read(LARGEST_INPUT_BYTES + 1)
        else:
            with Path(text[1:]).open("rb") as file:
                raw = file.read(LARGEST_INPUT_BYTES + 1)
    except OSError as error:
        raise InvalidOption("--input", text, f"a file that can be read ({error.strerror})") from error
    if len(raw) > LARGEST_INPUT_BYTES:
        raise InvalidOption("--input", text, f"at most {LARGEST_INPUT_BYTES} bytes")
    return raw
