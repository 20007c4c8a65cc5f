"""What a transaction has decided and not written yet, as the columns of the one statement that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.codec import CODEC_VERSION, checksum, encode_progress, encode_registration, encode_state
from perdure.model.progress import Progress
from perdure.model.registration import Registration
from perdure.stores.rows import RowWrite
from perdure.transitions.projection import lane, project, project_lease

NEW = ("rows", "ids", "lanes", "priorities", "statuses", "ready", "deadlines", "settles", "parents", "states", "bodies")
SAVED = ("rows", "statuses", "ready", "deadlines", "settles", "states")
EVENT = ("rows", "sequences", "types", "times", "replay_keys", "operations", "hashes", "checksums", "payloads")
LEASE = (
    "rows", "stood_fences", "stood_expiries", "owners", "incarnations", "tokens", "fences", "claims", "claimed",
    "expires", "boots", "boot_expires", "released", "lanes", "priorities", "settles",
)  # fmt: skip
DROPPED = ("rows", "fences", "expiries")
PROGRESS = ("rows", "bodies")


class Written:
    """Rows in the order in which they are to be written. `stood` holds, by row, the fence and expiry of the lease that
    was read: another one must not be overwritten."""

    def __init__(self) -> None:
        self.registrations: list[tuple[int, Registration]] = []
        self.stood: dict[int, tuple[int, int]] = {}
        self._new: list[tuple[Any, ...]] = []
        self._saved: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._leases: list[tuple[Any, ...]] = []
        self._dropped: list[tuple[Any, ...]] = []
        self._progress: list[tuple[Any, ...]] = []

    @property
    def is_empty(self) -> bool:
        return not (self._new or self._saved or self._events or self._leases or self._dropped or self._progress)

    def insert(self, rows: Sequence[RowWrite]) -> None:
        """In order of id, as other programs do it: who waits for an insert of another never makes a circle."""
        for row in sorted(rows, key=lambda row: row.record.registration.id):
            r, state, p = row.record.registration, row.record.state, project(row.record)
            self.registrations.append((row.key, r))
            self._new.append(
                (row.key, r.id, lane(r.queue, r.definition), r.priority, state.status, p.ready_at_ms,
                 p.deadline_at_ms, p.settle_at_ms, r.parent, encode_state(state), encode_registration(r))
            )  # fmt: skip

    def save(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            state, p = row.record.state, project(row.record)
            self._saved.append(
                (row.key, state.status, p.ready_at_ms, p.deadline_at_ms, p.settle_at_ms, encode_state(state))
            )

    def append(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            self._events += [
                (row.key, e.sequence, e.type, e.at_ms, e.replay_key, e.operation_id, e.operation_hash, checksum(e),
                 bytes(e.payload).decode())
                for e in row.fresh
            ]  # fmt: skip

    def save_leases(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            stood = self.stood.get(row.key)
            lease = row.lease
            if lease is None:
                if stood is not None:
                    self._dropped.append((row.key, *stood))
                continue
            p = project_lease(row.record, lease)
            self._leases.append(
                (row.key, *(stood or (None, None)), lease.owner.name, lease.owner.incarnation, lease.token,
                 lease.fence, lease.claim_id, lease.claimed_at_ms, lease.expires_at_ms, lease.boot_id,
                 lease.boot_expires_ms, lease.released, p.lane, row.record.registration.priority, p.settle_at_ms)
            )  # fmt: skip

    def save_progress(self, progress: Mapping[int, Progress]) -> None:
        """In order of row: reports about the same rows never make a circle."""
        self._progress += [(row, encode_progress(said)) for row, said in sorted(progress.items())]

    def parameters(self) -> dict[str, Any]:
        """The columns by the names that the statement has for them."""
        return {
            "event_codec": CODEC_VERSION,
            **_columns("new", NEW, self._new),
            **_columns("saved", SAVED, self._saved),
            **_columns("event", EVENT, self._events),
            **_columns("lease", LEASE, self._leases),
            **_columns("dropped", DROPPED, self._dropped),
            **_columns("progress", PROGRESS, self._progress),
        }


def _columns(table: str, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {f"{table}_{name}": column for name, column in zip(names, columns, strict=True)}
