"""What can be set about a worker; checked when made."""

from __future__ import annotations

import msgspec

from perdure.errors import InvalidOption


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker claims, renews and stops. Durations in milliseconds.

    `concurrency`: processes at work at once. `lease_ttl_ms` is at least three times `renew_every_ms`. A loop blocked
    for `blocked_loop_ms` is reported with its stack; after `let_go_ms` its leases are let lapse. `cancel_grace_ms` is
    what cancelled code gets for its clean-up, `drain_grace_ms` what running work gets when the worker stops.
    """

    concurrency: int = 64
    lease_ttl_ms: int = 15_000
    renew_every_ms: int = 5_000
    blocked_loop_ms: int = 5_000
    let_go_ms: int = 60_000
    cancel_grace_ms: int = 30_000
    drain_grace_ms: int = 10_000
    infrastructure_backoff_ms: int = 1_000
    queues: tuple[str, ...] = ("default",)

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 10_000:
            raise InvalidOption("concurrency", self.concurrency, "1 to 10,000")
        if self.renew_every_ms < 1:
            raise InvalidOption("renew_every_ms", self.renew_every_ms, "1 or more")
        if self.lease_ttl_ms < 3 * self.renew_every_ms:
            raise InvalidOption(
                "lease_ttl_ms", self.lease_ttl_ms, f"at least 3 * renew_every_ms ({self.renew_every_ms})"
            )
        for name in ("blocked_loop_ms", "let_go_ms", "cancel_grace_ms", "drain_grace_ms", "infrastructure_backoff_ms"):
            if getattr(self, name) < 0:
                raise InvalidOption(name, getattr(self, name), "0 or more")
        if not self.queues:
            raise InvalidOption("queues", self.queues, "at least one queue")

    @property
    def local_margin_ms(self) -> int:
        """How long before the store's expiry the worker stops its own work."""
        return self.lease_ttl_ms // 10
