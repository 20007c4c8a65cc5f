"""Lease rules: when one has lapsed, what a grant looks like, and whether a presented key is the one that stands."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perdure.clock import Moment
from perdure.errors import LeaseSuperseded
from perdure.model.leases import DeathProof, Lease, LeaseKey, Owner
from perdure.model.record import ProcessRecord

NO_PROOFS: dict[str, DeathProof] = {}


def has_expired(lease: Lease, now: Moment) -> bool:
    """`now == expires` is expired. Only the boot time of the granting boot counts; another boot voids the lease."""
    return lease.boot_id != now.boot_id or lease.boot_expires_ms <= now.boot_ms


def proofs_by_incarnation(proofs: Iterable[DeathProof]) -> dict[str, DeathProof]:
    return {proof.incarnation: proof for proof in proofs}


def is_held(lease: Lease | None, now: Moment, proofs: dict[str, DeathProof] = NO_PROOFS) -> bool:
    """Whether somebody alive, as far as can be known, has the right to this row now."""
    return (
        lease is not None
        and not lease.released
        and not has_expired(lease, now)
        and lease.owner.incarnation not in proofs
    )


def gates(lease: Lease | None, now: Moment, proofs: dict[str, DeathProof] = NO_PROOFS) -> bool:
    """Whether the lease keeps the row from being claimed: it is held, or was released with a hold still running."""
    if lease is None or has_expired(lease, now):
        return False
    return lease.released or lease.owner.incarnation not in proofs


def next_fence(record: ProcessRecord, lease: Lease | None) -> int:
    """Fences never go down: one more than any that this row has ever seen."""
    return max(record.state.fence, lease.fence if lease else 0) + 1


def grant(
    record: ProcessRecord,
    standing: Lease | None,
    owner: Owner,
    token: str,
    claim_id: str,
    ttl_ms: int,
    now: Moment,
) -> Lease:
    """The lease that a claim makes. Re-entry by the incarnation that holds it keeps its token and fence."""
    if standing is not None and is_held(standing, now) and standing.owner.incarnation == owner.incarnation:
        return extend(standing, ttl_ms, now)
    return Lease(
        record.registration.id,
        owner,
        token,
        next_fence(record, standing),
        claim_id,
        now.wall_ms,
        now.wall_ms + ttl_ms,
        now.boot_id,
        now.boot_ms + ttl_ms,
    )


def extend(lease: Lease, ttl_ms: int, now: Moment) -> Lease:
    """Renewal changes nothing but the expiry, and never shortens it."""
    return msgspec.structs.replace(
        lease,
        expires_at_ms=max(lease.expires_at_ms, now.wall_ms + ttl_ms),
        boot_expires_ms=max(lease.boot_expires_ms, now.boot_ms + ttl_ms),
    )


def release(lease: Lease, hold_ms: int, now: Moment) -> Lease:
    """A released lease is nobody's; it gates the row until the hold has passed."""
    return msgspec.structs.replace(
        lease,
        released=True,
        expires_at_ms=now.wall_ms + hold_ms,
        boot_id=now.boot_id,
        boot_expires_ms=now.boot_ms + hold_ms,
    )


def check_key(standing: Lease | None, presented: LeaseKey, now: Moment) -> LeaseSuperseded | None:
    """None if the presented key is the standing lease and that has not expired; else the refusal."""
    if (
        standing is not None
        and not standing.released
        and standing.process_id == presented.process_id
        and standing.fence == presented.fence
        and standing.token == presented.token
        and standing.owner.incarnation == presented.incarnation
        and not has_expired(standing, now)
    ):
        return None
    if standing is None:
        return LeaseSuperseded(presented.process_id, presented.fence, 0, None)
    holder = None if standing.released else standing.owner.name
    return LeaseSuperseded(presented.process_id, presented.fence, standing.fence, holder)
