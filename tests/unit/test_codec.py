"""F.5: what is stored has golden text, reads back as it was, and is refused by name when it is newer or damaged."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec import (
    CODEC_VERSION,
    as_events,
    checksum,
    decode_fact,
    decode_registration,
    decode_state,
    encode_fact,
    encode_registration,
    encode_state,
    refold,
    verified,
)
from perdure.errors import ChecksumMismatch, DecodeError, UnknownCodecVersion
from perdure.model.events import (
    LIFECYCLE,
    AbandonRequested,
    AnyFact,
    CallerDeparture,
    CancelRequested,
    Event,
    ExternalRefSet,
    ProcessAbandoned,
    ProcessAdmitted,
    ProcessAwaited,
    ProcessCancelled,
    ProcessCompleted,
    ProcessFailed,
    ProcessResumed,
    ProcessSettled,
    ProcessStarted,
    ProcessWaiting,
    ProcessWoken,
    RetryScheduled,
    SignalReceived,
    StartWithdrawn,
    Takeover,
    Written,
)
from perdure.model.outcomes import Abandoned, ErrorDetail, Evidence
from perdure.model.record import AbandonRequest, CancelRequest, ProcessState, Started
from perdure.model.registration import Registration
from perdure.model.waits import ChildWait, SignalWait, TimerWait
from tests.unit.situations import DONE, STARTED, A, B, raw, record, registration
from tests.unit.test_registration import FULL

# Each fact with the text that it has had since the first version.
GOLDEN: list[tuple[AnyFact, str, str]] = [
    (
        ProcessStarted(A, 2, 2, "c-1", Takeover(B, 1, "lapsed")),
        "process.started",
        '{"owner":{"name":"a","incarnation":"a-1"},"fence":2,"attempt":2,"claim_id":"c-1",'
        '"takeover":{"owner":{"name":"b","incarnation":"b-1"},"fence":1,"cause":"lapsed"}}',
    ),
    (
        StartWithdrawn(1, "no engine", 5),
        "process.start_withdrawn",
        '{"fence":1,"reason":"no engine","due_at_ms":5}',
    ),
    (ProcessAdmitted("w"), "process.admitted", '{"workflow_key":"w"}'),
    (
        ProcessWaiting((SignalWait("go", 1), TimerWait(9), ChildWait("c")), 3),
        "process.waiting",
        '{"waits":[{"type":"signal","name":"go","ordinal":1},{"type":"timer","due_at_ms":9},'
        '{"type":"child","child_id":"c"}],"fence":3}',
    ),
    (
        ProcessResumed(A, 4, 2, "c-2"),
        "process.resumed",
        '{"owner":{"name":"a","incarnation":"a-1"},"fence":4,"attempt":2,"claim_id":"c-2"}',
    ),
    (ProcessWoken(TimerWait(9), "t"), "process.woken", '{"wait":{"type":"timer","due_at_ms":9},"cause":"t"}'),
    (
        RetryScheduled(ErrorDetail("E", "m"), 1, 9, 2),
        "process.retry_scheduled",
        '{"error":{"type":"E","message":"m"},"failures":1,"due_at_ms":9,"fence":2}',
    ),
    (CancelRequested("r", "x"), "process.cancel_requested", '{"reason":"r","by":"x"}'),
    (AbandonRequested("o", "g"), "process.abandon_requested", '{"by":"o","reason":"g"}'),
    (ExternalRefSet("j"), "process.external_ref_set", '{"ref":"j"}'),
    (CallerDeparture("gone"), "process.caller_departed", '{"reason":"gone"}'),
    (ProcessSettled(), "process.settled", "{}"),
    (ProcessAwaited(), "process.awaited", "{}"),
    (
        ProcessCompleted("lease", 1, "a-1", raw("1")),
        "process.completed",
        '{"authority":"lease","fence":1,"by":"a-1","value":1}',
    ),
    (
        ProcessFailed("lease", 1, "a-1", error=ErrorDetail("E")),
        "process.failed",
        '{"authority":"lease","fence":1,"by":"a-1","error":{"type":"E"}}',
    ),
    (
        ProcessCancelled("registry", 2, "x", reason="r", requested_by="y"),
        "process.cancelled",
        '{"authority":"registry","fence":2,"by":"x","reason":"r","requested_by":"y"}',
    ),
    (
        ProcessAbandoned("registry", 2, "x", outcome=Abandoned(Evidence("engine", "h", 1, "p"))),
        "process.abandoned",
        '{"authority":"registry","fence":2,"by":"x","outcome":{"type":"abandoned",'
        '"evidence":{"writer":"engine","owner":"h","at_ms":1,"proof":"p"}}}',
    ),
    (
        SignalReceived(name="go", signal_id="s", payload=raw('{"n":1}')),
        "signal.go",
        '{"name":"go","signal_id":"s","payload":{"n":1}}',
    ),
    (Written("note", raw("[1.5,null]")), "note", "[1.5,null]"),
]
STATE = ProcessState(
    status="waiting", attempt=2, failures=1, deaths=1, fence=3, started=Started(A, 3, 2, 5, "c-1"),
    waits=(SignalWait("go", 1), TimerWait(9), ChildWait("c")), signals={"go": 1}, due_at_ms=9,
    cancel_request=CancelRequest("r", None, 6), abandon_request=AbandonRequest("o", "g", 7), external_ref="x",
    created_at_ms=1, updated_at_ms=8, started_at_ms=2, last_sequence=7,
)  # fmt: skip
STATE_TEXT = (
    '{"v":1,"status":"waiting","attempt":2,"failures":1,"deaths":1,"fence":3,'
    '"started":{"owner":{"name":"a","incarnation":"a-1"},"fence":3,"attempt":2,"at_ms":5,"claim_id":"c-1"},'
    '"waits":[{"type":"signal","name":"go","ordinal":1},{"type":"timer","due_at_ms":9},'
    '{"type":"child","child_id":"c"}],"signals":{"go":1},"due_at_ms":9,'
    '"cancel_request":{"reason":"r","by":null,"at_ms":6},'
    '"abandon_request":{"by":"o","reason":"g","at_ms":7},"external_ref":"x","created_at_ms":1,"updated_at_ms":8,'
    '"started_at_ms":2,"last_sequence":7}'
)


@pytest.mark.parametrize(("fact", "type", "text"), GOLDEN)
def test_a_fact_is_written_as_in_the_first_version_and_reads_back_as_it_was(
    fact: AnyFact, type: str, text: str
) -> None:
    assert (fact.type, encode_fact(fact).decode()) == (type, text)
    assert decode_fact(Event("p", 1, type, raw(text), 0)) == fact


def test_every_lifecycle_type_has_a_golden_text() -> None:
    assert {type for _, type, _ in GOLDEN} == {*LIFECYCLE, "signal.go", "note"}


def test_a_state_is_written_as_in_the_first_version_and_reads_back_as_it_was() -> None:
    assert encode_state(STATE) == STATE_TEXT
    assert decode_state(STATE_TEXT, "p") == STATE
    least = '{"v":1,"created_at_ms":1,"updated_at_ms":2}'
    assert encode_state(ProcessState(created_at_ms=1, updated_at_ms=2)) == least
    assert decode_state(least, "p") == ProcessState(created_at_ms=1, updated_at_ms=2)


def test_a_registration_is_written_as_in_the_first_version_and_reads_back_as_it_was() -> None:
    text = '{"v":1,"id":"p","definition":{"engine":"python","name":"work","version":1},"recovery":"rerunnable"}'
    assert encode_registration(registration()) == text
    assert decode_registration(text, "p") == registration()
    full = registration(**FULL)
    assert decode_registration(encode_registration(full), "p") == full


def test_fields_that_a_version_does_not_know_are_ignored_where_the_format_number_is_its_own() -> None:
    assert decode_state('{"v":1,"created_at_ms":1,"updated_at_ms":2,"mood":"good"}', "p") == ProcessState(
        created_at_ms=1, updated_at_ms=2
    )


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (decode_state, '{"v":2,"created_at_ms":1,"updated_at_ms":2}'),
        (decode_registration, '{"v":2,"id":"p"}'),
    ],
)
def test_a_newer_format_is_refused_naming_both(decode: object, text: str) -> None:
    with pytest.raises(UnknownCodecVersion, match="format 2; this version reads 1") as caught:
        decode(text, "p")  # type: ignore[operator]
    assert (caught.value.fields["found"], caught.value.fields["known"]) == (2, 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"v":1,"status":"walking","created_at_ms":1,"updated_at_ms":2}', "walking"),
        ('{"v":1,"created_at_ms":1}', "updated_at_ms"),
        ('{"v":1,"created_at_ms":"x","updated_at_ms":2}', "created_at_ms"),
        ('{"v":0,"created_at_ms":1,"updated_at_ms":2}', "'p'"),
        ("[]", "'p'"),
        ("{", "damaged"),
        ("", "damaged"),
        (b"\xff", "damaged"),
    ],
)
def test_a_state_that_cannot_be_read_is_a_decode_error_that_names_what(text: str | bytes, named: str) -> None:
    with pytest.raises(DecodeError, match=named) as caught:
        decode_state(text, "p")
    assert "'p'" in str(caught.value)


def test_a_lifecycle_type_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(UnknownCodecVersion, match=r"event 3 \(process\.dreamt\) of process 'p'"):
        decode_fact(Event("p", 3, "process.dreamt", raw("{}"), 0))


def test_a_journal_or_user_type_of_a_later_version_is_an_event_like_any_other() -> None:
    assert decode_fact(Event("p", 3, "step.dreamt", raw("{}"), 0)) == Written("step.dreamt", raw("{}"))


def test_a_damaged_payload_of_a_lifecycle_event_is_a_decode_error_that_names_the_event() -> None:
    for text in ("{", "{}", '{"owner":1}'):
        with pytest.raises(DecodeError, match=r"event 3 \(process\.started\) of process 'p'"):
            decode_fact(Event("p", 3, "process.started", raw(text), 0))


NOTE = Event("p", 1, "note", raw('{"n":1}'), 1_000, "k", "o", "h")


def test_checksums_are_what_they_were_in_the_first_version() -> None:
    assert checksum(NOTE) == 2_544_116_941
    assert checksum(Event("p", 1, "note", raw('{"n":1}'), 1_000)) == 3_363_741_343


def test_a_change_of_anything_that_the_event_says_changes_the_checksum() -> None:
    other = {"process_id": "q", "sequence": 2, "type": "mote", "payload": raw('{"n":2}'), "at_ms": 1_001,
             "replay_key": None, "operation_id": "p", "operation_hash": None}  # fmt: skip
    assert set(other) == set(Event.__struct_fields__)
    sums = {checksum(msgspec.structs.replace(NOTE, **{field: value})) for field, value in other.items()}
    assert len(sums | {2_544_116_941}) == len(other) + 1


@given(st.binary(min_size=1, max_size=200), st.integers(0, 10_000))
def test_every_single_flipped_bit_of_a_payload_is_found(payload: bytes, at: int) -> None:
    flipped = bytearray(payload)
    flipped[at % len(payload)] ^= 1 << (at % 8)
    stored = checksum(Event("p", 1, "note", msgspec.Raw(payload), 0))
    with pytest.raises(ChecksumMismatch):
        verified(Event("p", 1, "note", msgspec.Raw(bytes(flipped)), 0), stored, CODEC_VERSION)


def test_an_event_of_another_codec_version_is_refused_before_its_checksum_is_looked_at() -> None:
    with pytest.raises(UnknownCodecVersion) as caught:
        verified(NOTE, 0, 7)
    assert (caught.value.fields["found"], caught.value.fields["known"]) == (7, 1)
    assert verified(NOTE, 2_544_116_941, 1) == NOTE


def test_a_log_folds_to_the_record_that_its_facts_make() -> None:
    declared: Registration = registration()
    facts: tuple[AnyFact, ...] = (STARTED, Written("step.completed", raw("1")), DONE)
    events = [e for n, fact in enumerate(facts, 1) for e in as_events("p", (fact,), n, 1_000 + 1_000 * n)]
    assert [event.sequence for event in events] == [1, 2, 3]
    assert refold(declared, 1_000, events) == record(declared, *facts)
