"""Processes, events and outcomes as commands show them: as JSON data, and as short text."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.text import cut, duration, moment
from perdure.engines.python.journal_view import JournalEntry
from perdure.model.events import Event
from perdure.model.live import Chunk
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Failed, ProcessAwaitOutput, RetainedNoLonger
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait

GLYPHS = {
    "pending": "◌", "running": "●", "waiting": "◐", "completed": "✔", "failed": "✖", "cancelled": "⊘",
    "abandoned": "⚑", "caller_departed": "◌",
}  # fmt: skip


def plain(value: Any) -> Any:
    """Any of our nouns as JSON data: tagged unions carry their tag, stored JSON stands as itself."""
    return msgspec.json.decode(msgspec.json.encode(value))


def record_data(record: ProcessRecord) -> dict[str, Any]:
    """A record as JSON data: the fields people ask for first, then all of it."""
    registration, state = record.registration, record.state
    return {
        "id": record.id,
        "definition": str(registration.definition),
        "status": record.status,
        "recovery": registration.recovery,
        "attempt": state.attempt,
        "failures": state.failures,
        "deaths": state.deaths,
        "created_at_ms": state.created_at_ms,
        "started_at_ms": state.started_at_ms,
        "finished_at_ms": state.finished_at_ms,
        "outcome": None if state.outcome is None else plain(state.outcome),
        "registration": plain(registration),
        "state": plain(state),
    }


def event_data(event: Event) -> dict[str, Any]:
    return {
        "process_id": event.process_id,
        "sequence": event.sequence,
        "type": event.type,
        "at_ms": event.at_ms,
        "replay_key": event.replay_key,
        "payload": plain(event.payload),
    }


def chunk_data(chunk: Chunk) -> dict[str, Any]:
    return {
        "process_id": chunk.process_id,
        "channel": chunk.channel,
        "number": chunk.number,
        "missed": chunk.missed,
        "attempt": chunk.attempt,
        "fence": chunk.fence,
        "step": chunk.step,
        "value": chunk.value,
    }


def chunk_text(chunk: Chunk) -> str:
    """What was published in one line, and how much was missed before it."""
    said = chunk.value if isinstance(chunk.value, str) else bytes(chunk.payload).decode()
    return f"[{chunk.missed} missed] {said}" if chunk.missed else said


def progress_text(progress: Progress) -> str:
    """3 of 4 (75%) pages read"""
    text = f"{progress.done:,}" if progress.total is None else f"{progress.done:,} of {progress.total:,}"
    if progress.fraction is not None:
        text += f" ({int(progress.fraction * 100)}%)"
    return f"{text} {progress.note}".rstrip()


def outcome_text(outcome: ProcessAwaitOutput) -> str:
    """How it ended, in one line."""
    match outcome:
        case Completed(value):
            return bytes(value).decode()
        case Failed(error):
            return f"{error.type}: {error.message}" if error.message else error.type
        case Cancelled(reason, by):
            return f"{reason} (asked by {by})" if by else reason
        case Abandoned(evidence):
            return f"{evidence.writer}: {evidence.proof}"
        case RetainedNoLonger(status):
            return f"ended ({status}); its record was pruned"


def note(record: ProcessRecord, now_ms: int) -> str:
    """What is worth knowing of a process beside its status: who runs it, what it waits for, how it ended."""
    state = record.state
    if state.outcome is not None:
        return outcome_text(state.outcome)
    if state.abandon_request is not None:
        return f"abandon requested by {state.abandon_request.by}"
    if state.cancel_request is not None:
        return f"cancel requested: {state.cancel_request.reason}"
    if state.status == "running" and state.started is not None:
        return f"by {state.started.owner.name}"
    if state.status == "waiting":
        return "for " + ", ".join(wait_text(wait, now_ms) for wait in state.waits)
    if state.due_at_ms is not None and state.due_at_ms > now_ms:
        return f"due in {duration(state.due_at_ms - now_ms)}"
    return ""


def wait_text(wait: Wait, now_ms: int) -> str:
    match wait:
        case SignalWait(name, ordinal):
            return f"signal {name} #{ordinal}"
        case TimerWait(due_at_ms):
            return f"a timer, due in {duration(due_at_ms - now_ms)}"
        case ChildWait(child_id):
            return f"process {child_id}"


def since(record: ProcessRecord, now_ms: int) -> str:
    """How long it took; or, while it lives, how long ago it was last changed."""
    state = record.state
    if state.finished_at_ms is not None:
        return duration(state.finished_at_ms - (state.started_at_ms or state.created_at_ms))
    return duration(now_ms - state.updated_at_ms)


def status_text(record: ProcessRecord) -> str:
    return f"{GLYPHS[record.status]} {record.status}"


def entry_data(entry: JournalEntry) -> dict[str, Any]:
    """An entry of a journal as JSON data: what every entry has, then what its kind tells."""
    told: dict[str, Any] = {
        "tries": entry.tries, "arguments": entry.arguments, "value": entry.value, "error": plain(entry.error),
        "due_at_ms": entry.due_at_ms, "signal_sequence": entry.signal_sequence, "child_id": entry.child_id,
        "losers": list(entry.losers) or None, "outcome": plain(entry.outcome),
    }  # fmt: skip
    return {
        "sequence": entry.sequence, "at_ms": entry.at_ms, "attempt": entry.attempt, "kind": entry.kind,
        "key": entry.key, "status": entry.status, **{name: value for name, value in told.items() if value is not None},
    }  # fmt: skip


def entry_text(entry: JournalEntry, width: int | None = None) -> str:
    """What an entry of a journal tells beside its kind, key and status, in one line."""
    parts = []
    if entry.tries is not None and entry.tries > 1:
        parts.append(f"{entry.tries} tries")
    if entry.arguments:
        parts.append(f"{msgspec.json.encode(entry.arguments).decode()} ->")
    if entry.error is not None:
        parts.append(f"{entry.error.type}: {entry.error.message}")
    elif entry.raw_value is not None:
        parts.append(bytes(entry.raw_value).decode())
    elif entry.outcome is not None:
        parts.append(outcome_text(entry.outcome))
    if entry.due_at_ms is not None:
        parts.append(f"due {moment(entry.due_at_ms)}")
    if entry.child_id is not None:
        parts.append(entry.child_id)
    if entry.losers:
        parts.append(f"won; {', '.join(entry.losers)} lost")
    text = " ".join(parts)
    return text if width is None else cut(text, width)


def event_text(event: Event, width: int | None = None) -> str:
    """The payload of an event in one line; the start and the end of a process in words."""
    payload = plain(event.payload)
    match event.type, payload:
        case "process.started", {"owner": {"name": name}, "attempt": attempt, "fence": fence}:
            text = f"attempt {attempt} by {name} (fence {fence})"
            takeover = payload.get("takeover")
            if takeover:
                text += f", taken over from {takeover['owner']['name']}: {takeover['cause']}"
                text += f" ({takeover['proof']['detail']})" if takeover.get("proof") else ""
        case "process.completed", {"value": value}:
            text = msgspec.json.encode(value).decode()
        case "process.failed" | "process.retry_scheduled", {"error": {"type": kind, **error}}:
            text = f"{kind}: {error.get('message', '')}"
        case _:
            text = msgspec.json.encode(payload).decode()
    return text if width is None else cut(text, width)
