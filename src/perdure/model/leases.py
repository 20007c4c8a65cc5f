"""The right to execute one row: who holds it, until when, and what its holder presents."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.model.registration import Definition


class Owner(msgspec.Struct, frozen=True, gc=False):
    """One running worker: a name people know it by, and an incarnation that is new at every start."""

    name: str
    incarnation: str


class Enrolment(msgspec.Struct, frozen=True, gc=False):
    """A worker that may hold leases, and what it said it can run; None if it has not said."""

    owner: Owner
    definitions: tuple[Definition, ...] | None = None


class LeaseKey(msgspec.Struct, frozen=True, gc=False):
    """What a holder presents with every write: it must equal the standing lease in all four."""

    process_id: str
    incarnation: str
    token: str
    fence: int


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A time-limited, fenced, single-owner right to execute one row.

    The fence grows by one at each grant and survives release: a sink that remembers the highest fence it saw can
    refuse a stale owner. Within the boot that granted it only the boot time decides when it lapses; in any other
    boot it has lapsed. A released lease is held by nobody and gates the row until it expires.
    """

    process_id: str
    owner: Owner
    token: str
    fence: int
    claim_id: str
    claimed_at_ms: int
    expires_at_ms: int
    boot_id: str
    boot_expires_ms: int
    released: bool = False

    @property
    def key(self) -> LeaseKey:
        return LeaseKey(self.process_id, self.owner.incarnation, self.token, self.fence)


class DeathProof(msgspec.Struct, frozen=True, gc=False):
    """Evidence that an incarnation is dead, gathered by a prober. Absence of proof is never death."""

    incarnation: str
    method: Literal["lock_released", "pid_gone", "pid_reused", "rebooted"]
    detail: str
