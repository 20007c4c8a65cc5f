"""What follows when a process's code raises: another start later, or the end."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.clock import Moment
from perdure.model.outcomes import ErrorDetail, Failed
from perdure.model.record import ProcessRecord
from perdure.model.registration import RetryPolicy


@dataclass(frozen=True, slots=True)
class RetryAt:
    due_at_ms: int
    error: ErrorDetail


def decide_failure(record: ProcessRecord, error: ErrorDetail, now: Moment, fraction: float) -> Failed | RetryAt:
    """`fraction` in [0, 1) is the chance that spreads retries: 0.5 is exactly the nominal delay."""
    policy, failures = record.registration.retry, record.state.failures + 1
    if policy is None or not error.retryable or failures >= policy.max_attempts or error.type in policy.non_retryable:
        return Failed(error)
    return RetryAt(now.wall_ms + delay_ms(policy, failures, fraction), error)


def delay_ms(policy: RetryPolicy, failures: int, fraction: float) -> int:
    """The wait before the start that follows the `failures`-th failure."""
    growth = policy.factor ** min(failures - 1, 1_000 if policy.factor == 1.0 else 64)
    nominal = min(float(policy.max_ms), policy.initial_ms * growth)
    return round(nominal * (1.0 + policy.jitter * (2.0 * fraction - 1.0)))
