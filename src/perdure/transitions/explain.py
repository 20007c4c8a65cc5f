"""Why a process is not running, or who runs it: a verdict, the facts behind it, and what would change it."""

from __future__ import annotations

from perdure.clock import Moment
from perdure.model.leases import Lease
from perdure.model.queries import Explanation
from perdure.model.record import ProcessRecord
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait
from perdure.transitions.leases import has_expired
from perdure.transitions.reach import Reach, advice, told


def explain(record: ProcessRecord, lease: Lease | None, now: Moment, reach: Reach | None = None) -> Explanation:
    """`reach` are the workers that may run it; None if nobody was asked."""
    state, registration, id = record.state, record.registration, record.id
    if record.is_terminal:
        return Explanation(process_id=id, verdict="ended", because=(_how_it_ended(record),))
    marks = _marks(record)
    if state.status == "caller_departed":
        return Explanation(
            process_id=id, verdict="departed", needs_attention=True,
            because=("its caller has departed: no outcome may ever come", *marks),
            you_can=(f"perdure abandon {id}", "complete it as its external owner"),
        )  # fmt: skip
    if registration.recovery == "externally_owned":
        because = ("it is externally_owned: its owner completes it, Perdure never runs it", *marks)
        return Explanation(process_id=id, verdict="external", because=because, you_can=(f"perdure abandon {id}",))
    if state.admitted is not None:
        because = (f"it was handed to an engine under the key {state.admitted!r}", *marks)
        return Explanation(process_id=id, verdict="admitted", because=because)
    if lease is not None and not lease.released and not has_expired(lease, now):
        left_s = max(0, lease.boot_expires_ms - now.boot_ms) / 1000
        because = (
            f"{lease.owner.name} runs it (attempt {state.attempt}, fence {lease.fence})",
            f"its lease runs for {left_s:.1f} s more and is renewed while that worker lives",
            *marks,
        )
        return Explanation(process_id=id, verdict="running", because=because, you_can=(f"perdure cancel {id}",))
    if state.abandon_request is not None:
        because = ("nobody runs it any more: the next drive ends it as abandoned", *marks)
        return Explanation(process_id=id, verdict="recovering", because=because)
    match state.status:
        case "running":
            return _unowned(record, lease, now, reach, marks)
        case "waiting":
            because = tuple(f"it waits for {describe(wait, now)}" for wait in state.waits)
            verdict = "waiting" if state.due_at_ms is None or state.due_at_ms > now.wall_ms else "ready"
            return _for_somebody(record, reach, verdict, because, marks)
        case _:
            return _pending(record, now, reach, marks)


def _for_somebody(
    record: ProcessRecord, reach: Reach | None, verdict: str, because: tuple[str, ...], marks: tuple[str, ...],
    you_can: tuple[str, ...] = (),
) -> Explanation:  # fmt: skip
    """What any worker that knows its definition may run, now or later; with what is known of those workers."""
    definition = record.registration.definition
    lacks = reach is not None and reach.surely_lacks(definition)
    wants_one_now = lacks or verdict in ("ready", "recovering")
    facts = told(definition, reach) if reach is not None and wants_one_now else ()
    if lacks and reach is not None:
        you_can = (advice(definition, reach), *you_can)
    return Explanation(
        process_id=record.id, verdict=verdict, because=(*because, *facts, *marks), you_can=you_can,
        needs_attention=lacks,
    )  # fmt: skip


def _pending(record: ProcessRecord, now: Moment, reach: Reach | None, marks: tuple[str, ...]) -> Explanation:
    state, id = record.state, record.id
    left_ms = (state.due_at_ms or 0) - now.wall_ms
    cancel = f"perdure cancel {id}"
    if reach is not None and reach.surely_lacks(record.registration.definition):
        return _for_somebody(record, reach, "unknown_definition", (), marks, (cancel,))
    if left_ms > 0:
        why = f"failure {state.failures}: the next attempt" if state.failures else "it was started with a delay: it"
        return _for_somebody(record, reach, "delayed", (f"{why} is due in {left_ms / 1000:.1f} s",), marks, (cancel,))
    because = ("it is due, and no worker with a free permit took it yet",)
    return _for_somebody(record, reach, "ready", because, marks, ("perdure worker MODULE:HOST",))


def _unowned(
    record: ProcessRecord, lease: Lease | None, now: Moment, reach: Reach | None, marks: tuple[str, ...]
) -> Explanation:
    registration, id = record.registration, record.id
    owner = lease.owner.name if lease else "nobody"
    if lease is not None and lease.released and not has_expired(lease, now):
        left_s = (lease.boot_expires_ms - now.boot_ms) / 1000
        gone = f"{owner} gave it back; it can be claimed in {left_s:.1f} s"
    elif lease is not None and lease.released:
        gone = f"{owner} gave it back; it can be claimed"
    else:
        gone = f"the lease of {owner} has lapsed without an end being written"
    if registration.recovery == "owner_bound":
        return Explanation(
            process_id=id, verdict="needs_abandon", needs_attention=True,
            because=(gone, "it is owner_bound and its code was entered: nobody may enter it again", *marks),
            you_can=(f"perdure abandon {id}",),
        )  # fmt: skip
    left = registration.deaths_limit - record.state.deaths
    because = (gone, f"it is rerunnable: the next claim runs it again ({left} more deaths allowed)")
    return _for_somebody(record, reach, "recovering", because, marks)


def _marks(record: ProcessRecord) -> tuple[str, ...]:
    state = record.state
    marks = []
    if state.cancel_request is not None:
        marks.append(
            f"a cancel was requested by {state.cancel_request.by or 'somebody'}: {state.cancel_request.reason}"
        )
    if state.abandon_request is not None:
        marks.append(f"an abandon was requested by {state.abandon_request.by}: {state.abandon_request.reason}")
    return tuple(marks)


def describe(wait: Wait, now: Moment) -> str:
    """A wait in words."""
    match wait:
        case SignalWait():
            return f"signal {wait.name!r} number {wait.ordinal}"
        case TimerWait():
            return f"a timer that is due in {max(0, wait.due_at_ms - now.wall_ms) / 1000:.1f} s"
        case ChildWait():
            return f"the end of process {wait.child_id!r}"


def _how_it_ended(record: ProcessRecord) -> str:
    seconds = ((record.state.finished_at_ms or 0) - record.state.created_at_ms) / 1000
    return f"it ended ({record.status}) {seconds:.1f} s after it was registered, at attempt {record.attempt}"
