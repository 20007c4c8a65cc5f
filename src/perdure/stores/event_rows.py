"""How an event is read back from the columns of its row, on every store that has columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.codec import verified
from perdure.model.events import Event


def event_from_row(process_id: str, row: Sequence[Any]) -> Event:
    """An event as it was written, or a typed error; (sequence, type, payload, at, keys …, codec, checksum)."""
    sequence, kind, payload, at_ms, replay_key, operation_id, operation_hash, codec, stored_checksum = row
    event = Event(
        process_id, sequence, kind, msgspec.Raw(payload.encode()), at_ms, replay_key, operation_id, operation_hash
    )
    return verified(event, stored_checksum, codec)
