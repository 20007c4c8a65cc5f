"""Children: processes started by a process, with ids derived from its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from perdure.engines.python.definitions import Process
from perdure.engines.python.operations import Operation
from perdure.errors import InvalidOption, ProcessAbandoned, ProcessCancelled, ProcessFailed
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Failed, Outcome
from perdure.model.registration import NULL, PARENT_ENDS, ParentEnd, Registration
from perdure.values import ValueType

ResultT = TypeVar("ResultT")

LONGEST_ID = 200
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._:@+-]")


class ChildHandle(Generic[ResultT]):
    """A child of this process."""

    def __init__(self, id: str, result: Callable[[], Operation[ResultT]]) -> None:
        self.id, self._result = id, result

    def result(self) -> Operation[ResultT]:
        """The value it returned, once it has. Raises ProcessFailed, ProcessCancelled or ProcessAbandoned."""
        return self._result()

    def __repr__(self) -> str:
        return f"<child {self.id}>"


def child_id(parent_id: str, key: str) -> str:
    """Derived from the parent's id and the operation's key; a digest tells apart what would look the same, or would be
    too long."""
    plain = f"{parent_id}:{_NOT_IN_IDS.sub('.', key.removeprefix('child:'))}"
    if len(plain) <= LONGEST_ID and key.startswith("child:") and not _NOT_IN_IDS.search(key):
        return plain
    digest = hashlib.sha256(f"{parent_id}\x1f{key}".encode()).hexdigest()[:16]
    return f"{plain[: LONGEST_ID - 17]}.{digest}"


def check_parent_end(parent_end: ParentEnd) -> None:
    if parent_end not in PARENT_ENDS:
        raise InvalidOption("parent_end", parent_end, "'cancel', 'abandon' or 'wait'")


def child_registration(
    parent_id: str, key: str, process: Process[Any, Any], value: Any, parent_end: ParentEnd
) -> Registration:
    check_parent_end(parent_end)
    if process.input_type is None and value is not None:
        raise InvalidOption("value", value, f"none: {process.definition.name} takes no input")
    return Registration(
        id=child_id(parent_id, key),
        definition=process.definition,
        recovery=process.recovery,
        input=NULL if process.input_type is None else msgspec.Raw(process.input_type.encode(value)),
        retry=process.retry,
        max_deaths=process.max_deaths,
        deadline_ms=process.timeout_ms,
        queue=process.queue,
        signals=process.signal_schemas,
        parent=parent_id,
        parent_end=parent_end,
    )


def value_of(process_id: str, outcome: Outcome, result: ValueType[ResultT] | None) -> ResultT:
    """What a process returned (plain JSON data if its type is not known), or the error that says how it ended."""
    match outcome:
        case Completed(value):
            if result is None:
                return msgspec.json.decode(value)  # type: ignore[no-any-return]  # an untyped handle
            return result.decode(value)
        case Failed(error):
            raise ProcessFailed(process_id, outcome, f"{error.type}: {error.message}")
        case Cancelled(reason, by):
            raise ProcessCancelled(process_id, outcome, f"{reason} (asked by {by})" if by else reason)
        case Abandoned(evidence):
            raise ProcessAbandoned(process_id, outcome, f"{evidence.writer}: {evidence.proof}")
