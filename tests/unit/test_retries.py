"""What follows when code raises: the delays, their bounds, and when there is no retry any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.events import RetryScheduled
from perdure.model.outcomes import ErrorDetail, Failed
from perdure.model.record import ProcessRecord
from perdure.model.registration import RetryPolicy
from perdure.transitions.retries import RetryAt, decide_failure, delay_ms
from tests.unit.situations import NOW, STARTED, record, registration

ERROR = ErrorDetail("ValueError", "broken")


@pytest.mark.parametrize(
    ("failures", "fraction", "expected_ms"),
    [(1, 0.5, 1_000), (2, 0.5, 2_000), (3, 0.5, 4_000), (4, 0.5, 8_000), (5, 0.5, 10_000), (500, 0.5, 10_000),
     (1, 0.0, 900), (2, 0.0, 1_800), (1, 0.75, 1_050), (5, 0.0, 9_000)],
)  # fmt: skip
def test_delays_double_up_to_the_longest_and_are_spread_by_a_tenth(
    failures: int, fraction: float, expected_ms: int
) -> None:
    assert delay_ms(RetryPolicy(max_attempts=1_000, max_ms=10_000), failures, fraction) == expected_ms


def test_a_policy_without_growth_waits_the_same_time_always() -> None:
    policy = RetryPolicy(initial_ms=300, factor=1.0, jitter=0.0)
    assert [delay_ms(policy, n, 0.9) for n in (1, 2, 1_000_000)] == [300, 300, 300]


def test_an_enormous_number_of_failures_overflows_nothing() -> None:
    policy = RetryPolicy(max_attempts=1_000_000, factor=100.0, max_ms=5_000, jitter=0.0)
    assert delay_ms(policy, 1_000_000, 0.5) == 5_000


@given(
    st.integers(1, 1_000), st.integers(0, 10**6), st.floats(1, 100), st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_every_delay_stays_inside_the_jitter_of_the_longest(
    failures: int, initial_ms: int, factor: float, jitter: float, fraction: float
) -> None:
    policy = RetryPolicy(initial_ms=initial_ms, factor=factor, jitter=jitter, max_ms=60_000)
    assert 0 <= delay_ms(policy, failures, fraction) <= 60_000 * (1 + jitter) + 1


def failed_before(times: int, policy: RetryPolicy | None) -> ProcessRecord:
    facts = (RetryScheduled(ErrorDetail("E"), n, 0, 1) for n in range(1, times + 1))
    return record(registration(retry=policy), STARTED, *facts)


@pytest.mark.parametrize(
    ("failures_before", "policy", "error", "expected"),
    [
        (0, RetryPolicy(jitter=0.0), ERROR, RetryAt(101_000, ERROR)),
        (1, RetryPolicy(jitter=0.0), ERROR, RetryAt(102_000, ERROR)),
        (2, RetryPolicy(jitter=0.0), ERROR, Failed(ERROR)),
        (0, RetryPolicy(max_attempts=1), ERROR, Failed(ERROR)),
        (0, None, ERROR, Failed(ERROR)),
        (0, RetryPolicy(non_retryable=("ValueError",)), ERROR, Failed(ERROR)),
        (0, RetryPolicy(non_retryable=("OSError",), jitter=0.0), ERROR, RetryAt(101_000, ERROR)),
        (0, RetryPolicy(), ErrorDetail("E", retryable=False), Failed(ErrorDetail("E", retryable=False))),
    ],
)
def test_the_third_failure_of_three_attempts_is_the_last(
    failures_before: int, policy: RetryPolicy | None, error: ErrorDetail, expected: Failed | RetryAt
) -> None:
    assert decide_failure(failed_before(failures_before, policy), error, NOW, 0.5) == expected
