"""perdure worker"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import timedelta

import click
import msgspec

from perdure.cli.exit_codes import ExitCode
from perdure.cli.hosts import InvalidHost, find_host
from perdure.cli.logs import log_to_stderr
from perdure.cli.surface import Duration, Surface, common, run_async
from perdure.cli.text import counted
from perdure.host import Host
from perdure.runtime.options import WorkerOptions
from perdure.runtime.worker import Drained

TOLD_EVERY_S = 1.0


@click.command(
    epilog="""\b
Examples:
  perdure worker shop:host
  perdure worker shop:host --concurrency 8 --drain-grace 30s
  PERDURE_URL=sqlite:////var/lib/shop/work.db perdure worker shop:host"""
)
@click.argument("given", metavar="MODULE:HOST")
@click.option("--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="Processes at work at once. [host's]")
@click.option("--name", help="What this worker is called in logs and leases. [host:pid]")
@click.option("--lease-ttl", type=Duration(), metavar="TIME", help="Leases lapse after this; renewed 3 times as often.")
@click.option("--drain-grace", type=Duration(), metavar="TIME", help="What running work gets when the worker stops.")
@common
def worker(
    surface: Surface,
    given: str,
    concurrency: int | None,
    name: str | None,
    lease_ttl: float | None,
    drain_grace: float | None,
) -> int:
    """Run the processes that MODULE:HOST defines until SIGTERM or Ctrl-C.

    MODULE is looked for in the working directory too. The first signal drains: nothing new is claimed, running work
    gets its grace, what may be run again is given back, and what became of each run is printed. A second signal
    leaves at once; other workers then take over as soon as they have proof of death.
    """
    host = find_host(given)
    host.url = surface.given_url or host.url
    host.name = name or host.name
    host.options = _options(host.options, concurrency, lease_ttl, drain_grace)
    log_to_stderr()
    return run_async(lambda: _serve(surface, host, given))


def _options(
    options: WorkerOptions, concurrency: int | None, lease_ttl: float | None, drain_grace: float | None
) -> WorkerOptions:
    changes: dict[str, int] = {}
    if concurrency is not None:
        changes["concurrency"] = concurrency
    if lease_ttl is not None:
        changes["lease_ttl_ms"] = round(lease_ttl * 1000)
        changes["renew_every_ms"] = round(lease_ttl * 1000) // 3
    if drain_grace is not None:
        changes["drain_grace_ms"] = round(drain_grace * 1000)
    return msgspec.structs.replace(options, **changes)


async def _serve(surface: Surface, host: Host, given: str) -> int:
    stop = _stop_on_signals(surface)
    await host.open()
    if host.worker is None:
        await host.close()
        raise InvalidHost(given, "this host was made with work=False", "Give a host that may work.")
    definitions = ", ".join(f"{d.name}@{d.version}" for d in host.worker.definitions()) or "nothing yet"
    surface.say(
        f"worker {host.name} on {host.registry.name}: {counted(host.options.concurrency, 'permit')}, "
        f"runs {definitions}. Ctrl-C drains."
    )
    number = await stop
    drained = await _drain(surface, host)
    became = Counter(run.became for run in drained)
    if surface.json:
        surface.document(
            "worker", signal=signal.Signals(number).name, runs=[msgspec.to_builtins(run) for run in drained],
            became=dict(became),
        )  # fmt: skip
    else:
        surface.rows(("ID", "BECAME"), [(run.process_id, run.became) for run in drained])
        told = ", ".join(f"{count} {what}" for what, count in became.items()) or "nothing was running"
        surface.say(f"drained: {told}")
    return ExitCode.OK


def _stop_on_signals(surface: Surface) -> asyncio.Future[int]:
    """The first signal, as a future. The second one leaves at once."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[int] = loop.create_future()

    def received(number: int) -> None:
        if first.done():
            surface.say("leaving at once; what was running is taken over by others")
            os._exit(128 + number)
        first.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
    return first


async def _drain(surface: Surface, host: Host) -> tuple[Drained, ...]:
    """Close the host, telling how many runs are left meanwhile."""
    assert host.worker is not None
    in_flight = host.worker
    grace_ms = host.options.drain_grace_ms
    closing = asyncio.ensure_future(host.close(grace=timedelta(milliseconds=grace_ms)))
    if in_flight.in_flight:
        surface.say(
            f"draining: {counted(len(in_flight.in_flight), 'run')}, {grace_ms / 1000:g} s of grace; "
            "another signal leaves at once"
        )
    while not closing.done():
        await asyncio.wait({closing}, timeout=TOLD_EVERY_S)
        if not closing.done():
            surface.say(f"draining: {counted(len(in_flight.in_flight), 'run')} left")
    return closing.result()
