"""Registration: what may be declared, and when two registrations are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import msgspec

from perdure.canonical import is_storable
from perdure.clock import Moment
from perdure.errors import InvalidOption, InvalidProcessId, PerdureError, RegistrationConflict
from perdure.ids import check_process_id
from perdure.model.events import RUNTIME_PREFIXES
from perdure.model.record import ProcessRecord
from perdure.model.registration import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    RECOVERIES,
    Registration,
    RetryPolicy,
)
from perdure.transitions.commands import Register
from perdure.transitions.decision import UNCHANGED, Decision, Refusal, Standing
from perdure.transitions.declared import check_schema
from perdure.transitions.fold import initial_state

NAME_RULE = "1 to 100 characters: a letter or digit, then letters, digits and any of . _ -"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LONGEST_DURATION_MS = 100 * 366 * 24 * 3600 * 1000
_DURATION_RULE = f"0 to {LONGEST_DURATION_MS} ms (a hundred years)"


def decide_register(standing: Standing, command: Register, now: Moment) -> Decision | Refusal:
    registration = command.registration
    if refusal := check_registration(registration):
        return refusal
    if command.process_id != registration.id:
        return InvalidOption("process_id", command.process_id, f"the registration's own id, {registration.id!r}")
    if standing.record is None:
        return Decision("applied", base=ProcessRecord(registration, initial_state(registration, now.wall_ms)))
    differing = differences(standing.record.registration, registration)
    return RegistrationConflict(registration.id, differing) if differing else UNCHANGED


def fingerprint(registration: Registration) -> str:
    """SHA-256 of the canonical JSON of all but the id: decides between replay and conflict."""
    return hashlib.sha256(_meaning(registration)).hexdigest()


def _meaning(registration: Registration) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(registration, id=""), order="sorted")


def differences(standing: Registration, asked: Registration) -> tuple[str, ...]:
    """The names of the declared fields in which two registrations differ, in order of declaration."""
    if _meaning(standing) == _meaning(asked):
        return ()
    encode = msgspec.json.encode
    return tuple(
        field
        for field in Registration.__struct_fields__
        if field != "id"
        and encode(getattr(standing, field), order="sorted") != encode(getattr(asked, field), order="sorted")
    )


def check_registration(registration: Registration) -> PerdureError | None:
    """The first thing that may not be declared, or None."""
    try:
        check_process_id(registration.id)
        if registration.parent is not None:
            check_process_id(registration.parent)
    except InvalidProcessId as refusal:
        return refusal
    for option, name in (
        ("definition", registration.definition.name),
        ("engine", registration.definition.engine),
        ("queue", registration.queue),
        *(("signal", name) for name in registration.signals),
        *(("event type", name) for name in registration.event_types),
    ):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return InvalidOption(option, name, NAME_RULE)
    for option, text in _free_texts(registration):
        if text is not None and not (isinstance(text, str) and is_storable(text)):
            return InvalidOption(option, text, "text without NUL and lone surrogates")
    for event_type in registration.event_types:
        if event_type.startswith(RUNTIME_PREFIXES):
            return InvalidOption("event type", event_type, f"a name without the prefixes {' '.join(RUNTIME_PREFIXES)}")
    for what, schemas in (("signal", registration.signals), ("event type", registration.event_types)):
        for name, schema in schemas.items():
            if invalid := check_schema(f"{what} {name!r}", schema):
                return invalid
    return _check_numbers(registration) or _check_recovery(registration)


def _free_texts(registration: Registration) -> Iterator[tuple[str, str | None]]:
    yield "originator", registration.originator
    yield "caused_by", registration.caused_by
    yield "wake_target", registration.wake_target
    if registration.identity is not None:
        yield from (("identity", registration.identity.kind), ("identity", registration.identity.label))
    if registration.retry is not None:
        yield from (("retry.non_retryable", name) for name in registration.retry.non_retryable)


def _check_whole_numbers(registration: Registration) -> InvalidOption | None:
    """Anything else could be written and never be read again: structs don't check what they are made of."""
    retry = registration.retry
    for option, number in (
        ("priority", registration.priority),
        ("version", registration.definition.version),
        ("delay_ms", registration.delay_ms),
        ("deadline_ms", registration.deadline_ms),
        ("max_deaths", registration.max_deaths),
        ("retry.max_attempts", None if retry is None else retry.max_attempts),
        ("retry.initial_ms", None if retry is None else retry.initial_ms),
        ("retry.max_ms", None if retry is None else retry.max_ms),
    ):
        if number is not None and type(number) is not int:
            return InvalidOption(option, number, "a whole number")
    return None


def _check_numbers(registration: Registration) -> InvalidOption | None:
    if refused := _check_whole_numbers(registration):
        return refused
    if not HIGHEST_PRIORITY <= registration.priority <= LOWEST_PRIORITY:
        return InvalidOption(
            "priority", registration.priority, f"{HIGHEST_PRIORITY} (first) to {LOWEST_PRIORITY} (last)"
        )
    if registration.definition.version < 1:
        return InvalidOption("version", registration.definition.version, "1 or more")
    if not 0 <= registration.delay_ms <= LONGEST_DURATION_MS:
        return InvalidOption("delay_ms", registration.delay_ms, _DURATION_RULE)
    if registration.deadline_ms is not None and not 0 < registration.deadline_ms <= LONGEST_DURATION_MS:
        return InvalidOption("deadline_ms", registration.deadline_ms, _DURATION_RULE.replace("0 to", "1 to"))
    if registration.max_deaths is not None and not 0 <= registration.max_deaths <= 1_000_000:
        return InvalidOption("max_deaths", registration.max_deaths, "0 to 1,000,000")
    return None if registration.retry is None else _check_retry(registration.retry)


def _check_retry(retry: RetryPolicy) -> InvalidOption | None:
    if not 1 <= retry.max_attempts <= 1_000_000:
        return InvalidOption("retry.max_attempts", retry.max_attempts, "1 to 1,000,000")
    if not 0 <= retry.initial_ms <= LONGEST_DURATION_MS:
        return InvalidOption("retry.initial_ms", retry.initial_ms, _DURATION_RULE)
    if not 0 <= retry.max_ms <= LONGEST_DURATION_MS:
        return InvalidOption("retry.max_ms", retry.max_ms, _DURATION_RULE)
    if not isinstance(retry.factor, int | float) or not 1.0 <= retry.factor <= 100.0:
        return InvalidOption("retry.factor", retry.factor, "1 to 100")
    if not isinstance(retry.jitter, int | float) or not 0.0 <= retry.jitter <= 1.0:
        return InvalidOption("retry.jitter", retry.jitter, "0 to 1")
    return None


def _check_recovery(registration: Registration) -> InvalidOption | None:
    match registration.recovery:
        case "rerunnable":
            return None
        case "owner_bound":
            if registration.retry is not None:
                return InvalidOption(
                    "retry", registration.retry,
                    "none with recovery='owner_bound': once entered its code is never entered again (retry inside it)",
                )  # fmt: skip
            return None
        case "externally_owned":
            declared = {
                "retry": registration.retry,
                "max_deaths": registration.max_deaths,
                "deadline_ms": registration.deadline_ms,
                "delay_ms": registration.delay_ms or None,
            }
            for option, value in declared.items():
                if value is not None:
                    return InvalidOption(option, value, "none with recovery='externally_owned': Perdure never runs it")
            if registration.definition.engine != "external":
                return InvalidOption(
                    "engine", registration.definition.engine, "'external' with recovery='externally_owned'"
                )
            return None
        case _:
            return InvalidOption("recovery", registration.recovery, ", ".join(RECOVERIES))
