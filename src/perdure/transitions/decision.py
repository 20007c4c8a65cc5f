"""What a decision is made from and what it is: facts to write, what becomes of the lease, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from perdure.clock import Moment
from perdure.errors import OperationConflict, PerdureError, ReplayKeyConflict, UnknownProcess
from perdure.model.events import AnyFact, Event
from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.transitions.commands import Answer, RowCommand
from perdure.transitions.fold import apply


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What stands for one id when a command is decided.

    `said_before` are the stored events under the command's operation id; `keyed` is the one under its replay key.
    """

    record: ProcessRecord | None = None
    lease: Lease | None = None
    said_before: tuple[Event, ...] = ()
    keyed: Event | None = None


class Keep(msgspec.Struct, frozen=True, gc=False):
    """The lease stays as it is."""


class Put(msgspec.Struct, frozen=True, gc=False):
    """The lease becomes this one."""

    lease: Lease


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Nobody holds the row any more, and nothing gates it."""


LeaseChange = Keep | Put | Drop
KEEP, DROP = Keep(), Drop()


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The facts to append (the first one under `replay_key`, all under the operation), and the lease's fate.

    `answer` says what the caller is told; `base` is the record of a new row.
    """

    answer: Answer
    facts: tuple[AnyFact, ...] = ()
    lease: LeaseChange = KEEP
    replay_key: str | None = None
    replayed: tuple[Event, ...] = ()
    base: ProcessRecord | None = None


UNCHANGED = Decision("unchanged")

Refusal = PerdureError
"""A refusal is a typed error used as a value: it concerns its own command only, and writes nothing."""


def applied(*facts: AnyFact, lease: LeaseChange = KEEP, replay_key: str | None = None) -> Decision:
    return Decision("applied", facts, lease, replay_key)


def applied_facts(record: ProcessRecord, facts: Iterable[AnyFact], now: Moment) -> ProcessRecord:
    """The record after these facts, said at `now`."""
    registration, state = record.registration, record.state
    for fact in facts:
        state = apply(registration, state, fact, state.last_sequence + 1, now.wall_ms)
    return ProcessRecord(registration, state)


def standing_record(standing: Standing, command: RowCommand) -> ProcessRecord | UnknownProcess:
    if standing.record is None:
        return UnknownProcess(command.process_id)
    return standing.record


def operation_hash(command: RowCommand) -> str:
    """What the operation asked for: its arguments without its name."""
    unnamed = msgspec.structs.replace(command, operation_id=None)
    text = type(command).__name__.encode() + msgspec.json.encode(unnamed, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def answered_before(standing: Standing, command: RowCommand) -> Decision | OperationConflict | None:
    """An operation found again is answered with its stored events, before any other rule is looked at."""
    if command.operation_id is None or not standing.said_before:
        return None
    if any(event.operation_hash != operation_hash(command) for event in standing.said_before):
        return OperationConflict(command.process_id, command.operation_id)
    return Decision("applied", replayed=standing.said_before)


def keyed_before(standing: Standing, event_type: str, payload: msgspec.Raw) -> Decision | ReplayKeyConflict | None:
    """A replay key found again: equal content is the stored event, other content a conflict."""
    keyed = standing.keyed
    if keyed is None:
        return None
    if keyed.type == event_type and bytes(keyed.payload) == bytes(payload):
        return Decision("unchanged", replayed=(keyed,))
    assert keyed.replay_key is not None
    return ReplayKeyConflict(keyed.process_id, keyed.replay_key, keyed.sequence)
