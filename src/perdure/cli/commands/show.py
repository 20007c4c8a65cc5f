"""perdure show"""

from __future__ import annotations

import click

from perdure.cli.access import looking, resolve
from perdure.cli.described import event_data, event_text, note, plain, progress_text, record_data, status_text
from perdure.cli.surface import Surface, common, run_async
from perdure.cli.text import duration, moment
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord

SHOWN_EVENTS = 10


@click.command(
    epilog="""\b
Examples:
  perdure show order-42
  perdure show order-42 --json | jq .outcome"""
)
@click.argument("process_id", metavar="ID")
@common
def show(surface: Surface, process_id: str) -> int:
    """Everything that is known of one process, and the end of its log."""

    async def show_it() -> int:
        async with looking(surface.url) as host:
            id = await resolve(host, process_id)
            record, lease = await host.registry.get(id), await host.registry.get_lease(id)
            events = (await host.registry.recent_events(id, SHOWN_EVENTS)).events
            progress = (await host.registry.progress_of((id,))).get(id)
            if surface.json:
                shown = None if lease is None else {k: v for k, v in plain(lease).items() if k != "token"}
                surface.document(
                    "show", **record_data(record), lease=shown, progress=plain(progress),
                    recent_events=[event_data(e) for e in events],
                )  # fmt: skip
                return 0
            surface.facts(_facts(record, lease, progress, host.registry.now().wall_ms))
            if surface.for_people:
                print()
            surface.rows(("#", "AT", "EVENT", "WHAT"), [_event_row(e, surface) for e in events], styles=("right",))
        return 0

    return run_async(show_it)


def _event_row(event: Event, surface: Surface) -> tuple[str, ...]:
    return str(event.sequence), moment(event.at_ms), event.type, event_text(event, 300 if surface.for_people else None)


def _facts(record: ProcessRecord, lease: Lease | None, progress: Progress | None, now_ms: int) -> list[tuple[str, str]]:
    registration, state = record.registration, record.state
    facts = [
        ("id", record.id),
        ("status", record.status if not record.is_live else status_text(record)),
        ("note", note(record, now_ms)),
        ("definition", str(registration.definition)),
        ("recovery", registration.recovery),
        ("queue", f"{registration.queue}, priority {registration.priority}"),
        ("input", bytes(registration.input).decode()),
        ("created", moment(state.created_at_ms)),
        ("started", moment(state.started_at_ms)),
        ("finished", moment(state.finished_at_ms)),
        ("attempt", f"{state.attempt} ({state.failures} failures, {state.deaths} deaths)"),
    ]
    if registration.identity is not None:
        facts.append(("label", registration.identity.label))
    if lease is not None:
        held = "given back by" if lease.released else "held by"
        facts.append(("lease", f"{held} {lease.owner.name}, fence {lease.fence}, until {moment(lease.expires_at_ms)}"))
    if progress is not None:
        said = f"attempt {progress.attempt}, {duration(now_ms - progress.at_ms)} ago"
        facts.append(("progress", f"{progress_text(progress)} [{said}]"))
    return [(name, value) for name, value in facts if value]
