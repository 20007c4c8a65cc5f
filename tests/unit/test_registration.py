"""F.4: fingerprints have golden values, and change when the meaning does; what may not be declared is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.canonical import encode
from perdure.errors import (
    InvalidOption,
    InvalidProcessId,
    OperationConflict,
    PerdureError,
    RegistrationConflict,
    ReplayKeyConflict,
)
from perdure.model.events import Event
from perdure.model.registration import Definition, Identity, Registration, RetryPolicy
from perdure.transitions.commands import AppendEvent, Register, Signal
from perdure.transitions.decide import decide
from perdure.transitions.decision import UNCHANGED, Decision, Standing, operation_hash
from perdure.transitions.registering import check_registration, differences, fingerprint
from perdure.transitions.requests import signal_replay_key
from tests.unit.situations import ANYTHING, DONE, NOW, STARTED, WORK, raw, record, registration

FULL: dict[str, Any] = {
    "input": raw('{"a":[0.0,"é"],"b":1}'), "retry": RetryPolicy(9, 1, 1.5, 2, 0.5, ("A",)), "max_deaths": 0,
    "deadline_ms": 7, "delay_ms": 8, "queue": "q", "priority": 0, "identity": Identity("k", "l"),
    "event_types": {"e": raw('{"type":"string"}')}, "signals": {"s": ANYTHING, "r": raw("true")}, "originator": "o",
    "caused_by": "c", "parent": "p0", "wake_target": "w",
}  # fmt: skip


def test_fingerprints_are_what_they_were_in_the_first_version() -> None:
    """The SHA-256 of {"definition":{"engine":"python","name":"work","version":1},"id":"","recovery":"rerunnable","v":1}
    and of the same with an input: a change here makes every stored registration a conflict."""
    assert fingerprint(registration()) == "4bdbea20880fa7e9f45c446d22463247bd2157b0053485548567f4a1730ee92e"
    with_input = registration(input=raw('{"a":[0.0,"é"],"b":1}'))
    assert fingerprint(with_input) == "a2b2aa3b6cdd8be5f3ecd9f950d778b4d26a27660d0641136c2509f404ce7a7d"
    without_input = registration(**{field: value for field, value in FULL.items() if field != "input"})
    assert fingerprint(without_input) == "d684747507d9207f1739717f788c2e96c91cef8322161daaf74ca6c39daf3bb2"


def test_operation_hashes_are_what_they_were_in_the_first_version() -> None:
    command = AppendEvent(process_id="p", type="note", payload=raw('{"a":1}'), operation_id="op")
    expected = "c7f9c587c7da0f8652faa423004fedcd8d7e5e330caf4966c6ab723e0d9cf8c3"
    assert operation_hash(command) == expected
    assert operation_hash(msgspec.structs.replace(command, operation_id="another")) == expected
    assert operation_hash(msgspec.structs.replace(command, payload=raw('{"a":2}'))) != expected


def test_the_replay_key_of_a_signal_is_what_it_was_in_the_first_version() -> None:
    signal = Signal(process_id="p", name="go", payload=raw("1"), signal_id="s-1")
    assert signal_replay_key(signal) == "signal:s-1"
    assert signal_replay_key(msgspec.structs.replace(signal, signal_id=None)) is None


@pytest.mark.parametrize(
    ("type", "payload", "answer"),
    [
        ("note", '{"a":1}', "the stored event"),
        ("note", '{"a":2}', "a conflict"),
        ("mote", '{"a":1}', "a conflict"),
    ],
)
def test_a_replay_key_names_one_type_and_one_content(type: str, payload: str, answer: str) -> None:
    stored = Event("p", 1, "note", raw('{"a":1}'), 2_000, "k")
    asked = AppendEvent(process_id="p", type=type, payload=raw(payload), replay_key="k")
    decided = decide(Standing(record(registration()), keyed=stored), asked, NOW)
    if answer == "a conflict":
        assert isinstance(decided, ReplayKeyConflict)
        assert (decided.replay_key, decided.sequence) == ("k", 1)
    else:
        assert decided == Decision("unchanged", replayed=(stored,))


def test_an_operation_found_again_is_answered_first_and_conflicts_with_other_arguments() -> None:
    asked = AppendEvent(process_id="p", type="note", payload=raw('{"a":1}'), operation_id="op")
    golden = "c7f9c587c7da0f8652faa423004fedcd8d7e5e330caf4966c6ab723e0d9cf8c3"
    stored = Event("p", 1, "note", raw('{"a":1}'), 2_000, None, "op", golden)
    ended = Standing(record(registration(), STARTED, DONE), said_before=(stored,))
    assert decide(ended, asked, NOW) == Decision("applied", replayed=(stored,))
    other = msgspec.structs.replace(asked, payload=raw('{"a":2}'))
    assert isinstance(decide(ended, other, NOW), OperationConflict)


def test_the_id_is_no_part_of_the_fingerprint_and_every_other_field_is() -> None:
    base = registration()
    prints = {fingerprint(base)}
    assert fingerprint(msgspec.structs.replace(base, id="q")) in prints
    others = {"definition": Definition("python", "work", 2), "recovery": "owner_bound", "parent_end": "wait"}
    for field, value in {**FULL, **others}.items():
        prints.add(fingerprint(msgspec.structs.replace(base, **{field: value})))
    assert len(prints) == len(Registration.__struct_fields__)


def test_the_order_of_keys_and_the_sign_of_zero_change_no_fingerprint() -> None:
    one = registration(input=msgspec.Raw(encode({"a": -0.0, "b": 1})), signals={"r": ANYTHING, "s": ANYTHING})
    two = registration(input=msgspec.Raw(encode({"b": 1, "a": 0.0})), signals={"s": ANYTHING, "r": ANYTHING})
    assert fingerprint(one) == fingerprint(two)
    assert differences(one, two) == ()


def test_differences_are_named_in_the_order_of_declaration() -> None:
    assert differences(registration(), registration(**FULL)) == (
        "input", "retry", "max_deaths", "deadline_ms", "delay_ms", "queue", "priority", "identity", "event_types",
        "signals", "originator", "caused_by", "parent", "wake_target",
    )  # fmt: skip


def test_a_registration_makes_a_row_stands_again_or_conflicts() -> None:
    asked = Register(process_id="p", registration=registration())
    made = decide(Standing(), asked, NOW)
    assert isinstance(made, Decision)
    assert made.base == record(registration(), at_ms=100_000)
    assert decide(Standing(record(registration(), STARTED)), asked, NOW) == UNCHANGED
    other = Register(process_id="p", registration=registration(queue="q", priority=0))
    conflict = decide(Standing(record(registration())), other, NOW)
    assert isinstance(conflict, RegistrationConflict)
    assert conflict.differing == ("queue", "priority")


LONGEST = 3_162_240_000_000  # a hundred years of 366 days, in milliseconds


@pytest.mark.parametrize(
    ("declared", "option"),
    [
        ({"definition": Definition("python", "")}, "definition"),
        ({"definition": Definition("python", "a b")}, "definition"),
        ({"definition": Definition("py thon", "work")}, "engine"),
        ({"definition": Definition("python", "work", 0)}, "version"),
        ({"queue": "a|b"}, "queue"),
        ({"queue": "a" * 101}, "queue"),
        ({"signals": {"a/b": ANYTHING}}, "signal"),
        ({"signals": {"a": raw('{"type":"nothing"}')}}, "schema of signal 'a'"),
        ({"signals": {"a": raw('{"$ref":"https://example.org/x"}')}}, "schema of signal 'a'"),
        ({"event_types": {"": ANYTHING}}, "event type"),
        ({"event_types": {"process.started": ANYTHING}}, "event type"),
        ({"event_types": {"step.mine": ANYTHING}}, "event type"),
        ({"priority": -1}, "priority"),
        ({"priority": 10}, "priority"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"delay_ms": LONGEST + 1}, "delay_ms"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": LONGEST + 1}, "deadline_ms"),
        ({"max_deaths": -1}, "max_deaths"),
        ({"retry": RetryPolicy(max_attempts=0)}, "retry.max_attempts"),
        ({"retry": RetryPolicy(initial_ms=-1)}, "retry.initial_ms"),
        ({"retry": RetryPolicy(max_ms=LONGEST + 1)}, "retry.max_ms"),
        ({"retry": RetryPolicy(factor=0.9)}, "retry.factor"),
        ({"retry": RetryPolicy(factor=float("nan"))}, "retry.factor"),
        ({"retry": RetryPolicy(jitter=1.1)}, "retry.jitter"),
        ({"retry": RetryPolicy(jitter=float("nan"))}, "retry.jitter"),
        ({"retry": RetryPolicy(non_retryable=("\ud800",))}, "retry.non_retryable"),
        ({"originator": "a\0b"}, "originator"),
        ({"caused_by": "\ud800"}, "caused_by"),
        ({"wake_target": "\ud800"}, "wake_target"),
        ({"identity": Identity("k", "\ud800")}, "identity"),
        ({"recovery": "owner_bound", "retry": RetryPolicy()}, "retry"),
        ({"recovery": "immortal"}, "recovery"),
        ({"recovery": "externally_owned", "definition": WORK}, "engine"),
        ({"recovery": "externally_owned", "retry": RetryPolicy()}, "retry"),
        ({"recovery": "externally_owned", "max_deaths": 5}, "max_deaths"),
        ({"recovery": "externally_owned", "deadline_ms": 1}, "deadline_ms"),
        ({"recovery": "externally_owned", "delay_ms": 1}, "delay_ms"),
    ],
)
def test_what_may_not_be_declared_is_refused_by_the_name_of_its_option(declared: dict[str, Any], option: str) -> None:
    refused = check_registration(registration(**declared))
    assert isinstance(refused, InvalidOption)
    assert refused.option == option


@pytest.mark.parametrize(
    "declared", [FULL, {"priority": 9}, {"delay_ms": LONGEST}, {"deadline_ms": 1}, {"max_deaths": 0}]
)
def test_what_is_at_the_edge_of_its_range_is_accepted(declared: dict[str, Any]) -> None:
    assert check_registration(registration(**declared)) is None


@pytest.mark.parametrize("id", ["", "a" * 201, "a#b", " a", "a b", "a/b", "a\n", "\0", "é", ".a", "-a", "\ud800"])
def test_ids_outside_the_rule_are_refused_with_the_rule(id: str) -> None:
    wrong: list[dict[str, Any]] = [{"id": id}, {"parent": id}]
    for declared in wrong:
        refused: PerdureError | None = check_registration(registration(**declared))
        assert isinstance(refused, InvalidProcessId)
        assert refused.rule == "1 to 200 characters: a letter or digit, then letters, digits and any of . _ : @ + -"
