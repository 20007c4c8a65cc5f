"""Every error Perdure raises. A class holds the facts; the sentence is made from them here, in one place.

PerdureError
├── InvalidRequest               the caller's mistake; nothing was written
│   ├── InvalidProcessId  InvalidPayload  InvalidOption  InvalidDefinition
│   ├── UnknownDefinition  ReservedEventType  UndeclaredType
│   └── WrongHostUse  NotTransactional
├── Refused                      the request is well formed, and what stands says no; nothing was written
│   ├── UnknownProcess  NoLongerRetained
│   ├── RegistrationConflict  ReplayKeyConflict  OperationConflict  ExternalRefConflict
│   ├── LeaseSuperseded  LeaseHeld  NotPermitted  ProcessAlreadyTerminal  NotExternallyOwned
│   └── CallerDeparted  ProcessFinishedWithoutEvent
├── ProcessEnded                 the process ended without a value
│   └── ProcessFailed  ProcessCancelled  ProcessAbandoned
├── StoreError                   the store could not do it; names the file and what to do
│   ├── StoreFull  StoreReadOnly  StoreLocked  StoreCorrupt  StoreUnavailable  StoreClosed
│   ├── ForeignStore  NewerSchema  UnsafeFileSystem  ForkedConnection
│   └── OutcomeUnknown           the commit's answer was lost: ask again with the same operation id
└── DecodeError                  a stored row can't be read as it stands; never guessed at
    └── UnknownCodecVersion  ChecksumMismatch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PerdureError(Exception):
    """The root of everything Perdure raises on purpose."""

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(text)
        self._fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def fields(self) -> dict[str, Any]:
        """The facts of this error by name, as data for surfaces that print JSON."""
        return dict(self._fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self._fields)


def _rebuild(kind: type[PerdureError], text: str, fields: dict[str, Any]) -> PerdureError:
    error = kind.__new__(kind)
    PerdureError.__init__(error, text, **fields)
    return error


# --- the caller's mistakes -------------------------------------------------------------------------------------


class InvalidRequest(PerdureError):
    """Something in the request is not allowed. Nothing was written."""


class InvalidProcessId(InvalidRequest):
    value: object
    rule: str

    def __init__(self, value: object, rule: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        super().__init__(f"{shown} can't be a process id. Allowed: {rule}.", value=value, rule=rule)


class InvalidPayload(InvalidRequest):
    """A value can't be stored: where in it (`path`, from `$`), what is wrong, and what is allowed."""

    path: str
    problem: str
    allowed: str

    def __init__(self, path: str, problem: str, allowed: str) -> None:
        super().__init__(f"{problem} at {path}. Allowed: {allowed}.", path=path, problem=problem, allowed=allowed)


class InvalidOption(InvalidRequest):
    option: str
    value: object
    allowed: str

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(
            f"{option}={value!r} is not allowed. Allowed: {allowed}.", option=option, value=value, allowed=allowed
        )


class InvalidDefinition(InvalidRequest):
    definition: str

    def __init__(self, definition: str, problem: str) -> None:
        super().__init__(f"definition {definition!r}: {problem}", definition=definition)


class NotTransactional(InvalidRequest):
    """The user's code can't write in a transaction of this store, or not what it has tried to write."""

    store: str

    def __init__(self, store: str, problem: str, advice: str) -> None:
        super().__init__(f"{store}: {problem}. {advice}", store=store)


class UnknownDefinition(InvalidRequest):
    definition: str
    known: tuple[str, ...]

    def __init__(self, definition: str, known: Sequence[str]) -> None:
        listed = ", ".join(known) or "none"
        super().__init__(
            f"no definition named {definition!r} on this host. Known: {listed}.",
            definition=definition,
            known=tuple(known),
        )


class ReservedEventType(InvalidRequest):
    event_type: str

    def __init__(self, event_type: str, prefixes: Sequence[str]) -> None:
        super().__init__(
            f"event type {event_type!r} belongs to the runtime. A user's type must not begin with {' '.join(prefixes)}",
            event_type=event_type,
        )


class UndeclaredType(InvalidRequest):
    """A signal or event that the process's registration does not declare."""

    what: str
    name: str
    declared: tuple[str, ...]

    def __init__(self, what: str, name: str, declared: Sequence[str]) -> None:
        listed = ", ".join(declared) or "none"
        super().__init__(
            f"{what} {name!r} is not declared by this process. Declared: {listed}.",
            what=what,
            name=name,
            declared=tuple(declared),
        )


class WrongHostUse(InvalidRequest):
    """A host, handle or driver was used before it was opened, after it was closed, or from the wrong place."""


# --- what stands says no ---------------------------------------------------------------------------------------


class Refused(PerdureError):
    """The request was understood, and what stands in the registry rules it out. Nothing was written."""

    process_id: str


class UnknownProcess(Refused):
    def __init__(self, process_id: str) -> None:
        super().__init__(
            f"there is no process {process_id!r} in this registry. Check the id and the database.",
            process_id=process_id,
        )


class NoLongerRetained(Refused):
    status: str
    pruned_at_ms: int

    def __init__(self, process_id: str, status: str, pruned_at_ms: int) -> None:
        super().__init__(
            f"process {process_id!r} ended ({status}) and was pruned at {pruned_at_ms} ms; its record is gone.",
            process_id=process_id,
            status=status,
            pruned_at_ms=pruned_at_ms,
        )


class RegistrationConflict(Refused):
    differing: tuple[str, ...]

    def __init__(self, process_id: str, differing: Sequence[str]) -> None:
        super().__init__(
            f"process {process_id!r} is already registered with another {', '.join(differing)}. "
            "Use the same content to get the same process, or another id for new work.",
            process_id=process_id,
            differing=tuple(differing),
        )


class ReplayKeyConflict(Refused):
    replay_key: str
    sequence: int

    def __init__(self, process_id: str, replay_key: str, sequence: int) -> None:
        super().__init__(
            f"replay key {replay_key!r} of process {process_id!r} already stands on event {sequence} with other "
            "content. A key names one content: use another key.",
            process_id=process_id,
            replay_key=replay_key,
            sequence=sequence,
        )


class OperationConflict(Refused):
    operation_id: str

    def __init__(self, process_id: str, operation_id: str) -> None:
        super().__init__(
            f"operation {operation_id!r} was already done on process {process_id!r} with other arguments. "
            "An operation id names one call: use a new one.",
            process_id=process_id,
            operation_id=operation_id,
        )


class ExternalRefConflict(Refused):
    stands: str
    asked: str

    def __init__(self, process_id: str, stands: str, asked: str) -> None:
        super().__init__(
            f"process {process_id!r} already carries the external reference {stands!r}; it is written once and "
            f"{asked!r} was not stored.",
            process_id=process_id,
            stands=stands,
            asked=asked,
        )


class LeaseSuperseded(Refused):
    """The writer's lease is not the one that stands, or it has expired. Stop the work; nothing was recorded."""

    presented_fence: int
    standing_fence: int
    holder: str | None

    def __init__(self, process_id: str, presented_fence: int, standing_fence: int, holder: str | None) -> None:
        if holder is None:
            stands = "no live lease stands"
        elif presented_fence == standing_fence:
            stands = f"it has expired (it was held by {holder!r})"
        else:
            stands = f"lease {standing_fence} stands (held by {holder!r})"
        super().__init__(
            f"lease {presented_fence} of process {process_id!r} is no longer valid: {stands}. "
            "Stop the work; this write was not recorded.",
            process_id=process_id,
            presented_fence=presented_fence,
            standing_fence=standing_fence,
            holder=holder,
        )


class LeaseHeld(Refused):
    holder: str
    expires_at_ms: int

    def __init__(self, process_id: str, holder: str, expires_at_ms: int) -> None:
        super().__init__(
            f"process {process_id!r} is run by {holder!r} under a lease until {expires_at_ms} ms. "
            "Wait for it, or ask its owner to stop (cancel).",
            process_id=process_id,
            holder=holder,
            expires_at_ms=expires_at_ms,
        )


class NotPermitted(Refused):
    """The authority presented may not do this to this row (the table in docs/ says who may)."""

    authority: str
    disposition: str
    asked: str

    def __init__(self, process_id: str, authority: str, disposition: str, asked: str) -> None:
        super().__init__(
            f"{authority} may not {asked} process {process_id!r}, which is {disposition}.",
            process_id=process_id,
            authority=authority,
            disposition=disposition,
            asked=asked,
        )


class ProcessAlreadyTerminal(Refused):
    status: str

    def __init__(self, process_id: str, status: str, asked: str) -> None:
        super().__init__(
            f"process {process_id!r} has ended ({status}); {asked} changes nothing any more.",
            process_id=process_id,
            status=status,
            asked=asked,
        )


class NotExternallyOwned(Refused):
    disposition: str

    def __init__(self, process_id: str, disposition: str, asked: str) -> None:
        super().__init__(
            f"{asked} is for externally_owned processes; {process_id!r} is {disposition}.",
            process_id=process_id,
            disposition=disposition,
            asked=asked,
        )


class CallerDeparted(Refused):
    def __init__(self, process_id: str) -> None:
        super().__init__(
            f"the caller that owns process {process_id!r} has departed; no outcome may ever come. "
            "Its owner may still complete it; to stop waiting for it, request an abandon.",
            process_id=process_id,
        )


class ProcessFinishedWithoutEvent(Refused):
    event_type: str
    status: str

    def __init__(self, process_id: str, event_type: str, status: str) -> None:
        super().__init__(
            f"process {process_id!r} ended ({status}) without an event {event_type!r} past the given sequence.",
            process_id=process_id,
            event_type=event_type,
            status=status,
        )


# --- a process that ended without a value ----------------------------------------------------------------------


class ProcessEnded(PerdureError):
    """Raised by `Handle.result()` when the process ended otherwise than by returning a value."""

    process_id: str
    outcome: Any


class ProcessFailed(ProcessEnded):
    def __init__(self, process_id: str, outcome: Any, what: str) -> None:
        super().__init__(f"process {process_id!r} failed: {what}", process_id=process_id, outcome=outcome)


class ProcessCancelled(ProcessEnded):
    def __init__(self, process_id: str, outcome: Any, what: str) -> None:
        super().__init__(f"process {process_id!r} was cancelled: {what}", process_id=process_id, outcome=outcome)


class ProcessAbandoned(ProcessEnded):
    def __init__(self, process_id: str, outcome: Any, what: str) -> None:
        super().__init__(f"process {process_id!r} was abandoned: {what}", process_id=process_id, outcome=outcome)


class DurableError(PerdureError):
    """Raised into a process's code by a durable operation."""


class StepFailed(DurableError):
    """The step's code raised, and its retries (if it has any) are used up. The failure is recorded: it is raised again
    on replay, and not tried again unless the process itself is retried."""

    key: str
    error_type: str

    def __init__(self, key: str, error_type: str, message: str) -> None:
        text = f"step {key!r} failed: {error_type}: {message}"
        super().__init__(text, key=key, error_type=error_type, message=message)


class ReplayMismatch(DurableError):
    """A finished step is asked for with other arguments than it was run with."""

    key: str
    retryable = False

    def __init__(self, key: str, recorded: str, asked: str) -> None:
        super().__init__(
            f"step {key!r} was run with {recorded} and is now asked for with {asked}. Its result is kept for the call "
            "it was made for: give changed calls another name or key=, or mark the change with ctx.version.",
            key=key,
            recorded=recorded,
            asked=asked,
        )


class DuplicateKey(DurableError):
    key: str
    retryable = False

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} is used twice in this process. A key names one operation.", key=key)


class MisusedOperation(DurableError):
    retryable = False


class InfrastructureFailure(PerdureError):
    """An engine raises this when it could not run the code for reasons of its own: the row stays live."""


# --- the store -------------------------------------------------------------------------------------------------


class StoreError(PerdureError):
    """The store could not do what was asked. What was acknowledged before stands."""

    store: str

    def __init__(self, store: str, problem: str, remedy: str, **fields: Any) -> None:
        super().__init__(f"{store}: {problem}. {remedy}", store=store, problem=problem, remedy=remedy, **fields)


class StoreFull(StoreError):
    """No space left. Nothing of the refused call was written; work resumes when there is space."""


class StoreReadOnly(StoreError):
    """The file or its folder can't be written."""


class StoreLocked(StoreError):
    """Another program held the write lock past the bound."""


class StoreCorrupt(StoreError):
    """The file is damaged."""


class StoreUnavailable(StoreError):
    """The store can't be reached or failed to read or write."""


class StoreClosed(StoreError):
    """The store was closed before this call was committed; nothing of it was written."""


class ForeignStore(StoreError):
    """The file is a database of another program, or no database at all."""


class NewerSchema(StoreError):
    """The file was written by a newer Perdure."""


class UnsafeFileSystem(StoreError):
    """The file lies on a file system whose locks can't be trusted (a network or user-space one)."""


class ForkedConnection(StoreError):
    """The connection was opened before a fork and used after it."""


class OutcomeUnknown(StoreError):
    """The commit's answer was lost: it may or may not stand. Ask again with the same operation id."""


# --- what can't be read ----------------------------------------------------------------------------------------


class DecodeError(PerdureError):
    """A stored row can't be read by this version, or is damaged. It is never guessed at."""


class UnknownCodecVersion(DecodeError):
    def __init__(self, what: str, found: object, known: object) -> None:
        super().__init__(
            f"{what} was written in format {found}; this version reads {known}. Upgrade Perdure on this host.",
            what=what,
            found=found,
            known=known,
        )


class ChecksumMismatch(DecodeError):
    process_id: str
    sequence: int

    def __init__(self, process_id: str, sequence: int, expected: int, found: int) -> None:
        super().__init__(
            f"event {sequence} of process {process_id!r} is damaged: its checksum is {found}, expected {expected}. "
            "Restore the file from a backup; `perdure doctor --verify` lists every damaged row.",
            process_id=process_id,
            sequence=sequence,
            expected=expected,
            found=found,
        )
