"""How nouns are stored: versioned JSON for registrations and states, typed payloads and a checksum for events.

Formats are numbered. An older one is still read; a newer one is refused by name, never guessed at.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from perdure.errors import ChecksumMismatch, DecodeError, UnknownCodecVersion
from perdure.model.events import LIFECYCLE, AnyFact, Event, Fact, SignalReceived, Written
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord, ProcessState
from perdure.model.registration import Registration
from perdure.transitions.commands import Signal
from perdure.transitions.fold import fold

CODEC_VERSION = 1
"""Written beside every event row."""

POSTED_CODEC = 1
"""Written beside every command that waits to be delivered; 1: a signal."""

_encode = msgspec.json.Encoder().encode
_decode_posted = msgspec.json.Decoder(Signal).decode
_decode_state = msgspec.json.Decoder(ProcessState).decode
_decode_registration = msgspec.json.Decoder(Registration).decode
_decode_progress = msgspec.json.Decoder(Progress).decode
_decode_lifecycle = {name: msgspec.json.Decoder(kind).decode for name, kind in LIFECYCLE.items()}
_decode_signal = msgspec.json.Decoder(SignalReceived).decode


def encode_state(state: ProcessState) -> str:
    return _encode(state).decode()


def encode_registration(registration: Registration) -> str:
    return _encode(registration).decode()


def decode_state(text: str | bytes, process_id: str) -> ProcessState:
    return _decoded(_decode_state, text, f"the state of process {process_id!r}")  # type: ignore[no-any-return]


def decode_registration(text: str | bytes, process_id: str) -> Registration:
    return _decoded(_decode_registration, text, f"the registration of process {process_id!r}")  # type: ignore[no-any-return]


def encode_progress(progress: Progress) -> str:
    return _encode(progress).decode()


def decode_progress(text: str | bytes, process_id: str) -> Progress:
    return _decoded(_decode_progress, text, f"the progress of process {process_id!r}")  # type: ignore[no-any-return]


def encode_posted(command: Signal) -> str:
    return _encode(command).decode()


def decode_posted(text: str | bytes, codec_version: int, process_id: str) -> Signal:
    what = f"a signal that was posted to process {process_id!r}"
    if codec_version != POSTED_CODEC:
        raise UnknownCodecVersion(what, codec_version, POSTED_CODEC)
    return _decoded(_decode_posted, text, what)  # type: ignore[no-any-return]


def _decoded(decode: Any, text: str | bytes, what: str) -> Any:
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _explained(error, text, what) from error


def _explained(error: Exception, text: str | bytes, what: str) -> DecodeError:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return DecodeError(f"{what} is damaged: {error}")
    version = found.get("v") if isinstance(found, dict) else None
    if isinstance(version, int) and version > 1:
        return UnknownCodecVersion(what, version, 1)
    return DecodeError(f"{what} can't be read: {error}")


def encode_fact(fact: AnyFact) -> bytes:
    """The payload of a fact, as it is stored and as readers see it."""
    return bytes(fact.payload) if isinstance(fact, Written) else _encode(fact)


def decode_fact(event: Event) -> AnyFact:
    """What an event says. A lifecycle type that this version doesn't know is refused: the fold needs it."""
    what = f"event {event.sequence} ({event.type}) of process {event.process_id!r}"
    if event.type.startswith("process."):
        decode = _decode_lifecycle.get(event.type)
        if decode is None:
            raise UnknownCodecVersion(what, f"type {event.type}", "the types of its own version")
        return _decoded(decode, event.payload, what)  # type: ignore[no-any-return]
    if event.type.startswith("signal."):
        return _decoded(_decode_signal, event.payload, what)  # type: ignore[no-any-return]
    return Written(event.type, event.payload)


def checksum(event: Event) -> int:
    """CRC-32 over everything the event row says; any single flipped bit changes it."""
    e = event
    if e.replay_key is None and e.operation_id is None:
        text = f"{e.process_id}\x1f{e.sequence}\x1f{e.type}\x1f{e.at_ms}\x1f\x1f\x1f\x1f"
    else:
        keys = f"{e.replay_key or ''}\x1f{e.operation_id or ''}\x1f{e.operation_hash or ''}"
        text = f"{e.process_id}\x1f{e.sequence}\x1f{e.type}\x1f{e.at_ms}\x1f{keys}\x1f"
    return zlib.crc32(e.payload, zlib.crc32(text.encode()))


def verified(event: Event, stored_checksum: int, codec_version: int) -> Event:
    """The event, if it is as it was written; else a typed error. Never served as truth otherwise."""
    if codec_version != CODEC_VERSION:
        what = f"event {event.sequence} of process {event.process_id!r}"
        raise UnknownCodecVersion(what, codec_version, CODEC_VERSION)
    expected = checksum(event)
    if expected != stored_checksum:
        raise ChecksumMismatch(event.process_id, event.sequence, expected, stored_checksum)
    return event


def refold(registration: Registration, created_at_ms: int, events: Iterable[Event]) -> ProcessRecord:
    """The record that a stored log makes; compare it with the stored record to verify both."""
    return fold(registration, created_at_ms, ((e.sequence, e.at_ms, decode_fact(e)) for e in events))


def as_events(process_id: str, facts: Iterable[AnyFact], first_sequence: int, at_ms: int) -> tuple[Event, ...]:
    """The events that carry these facts, from `first_sequence` on."""
    return tuple(
        Event(process_id, first_sequence + offset, fact.type, msgspec.Raw(encode_fact(fact)), at_ms)
        for offset, fact in enumerate(facts)
    )


__all__ = [
    "CODEC_VERSION", "Fact", "as_events", "checksum", "decode_fact", "decode_registration", "decode_state",
    "encode_fact", "encode_registration", "encode_state", "refold", "verified",
]  # fmt: skip
