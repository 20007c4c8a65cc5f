"""The fairness and latency labs name what is out of bounds, and only that."""

from __future__ import annotations

from lab.fairness import Share, report_on
from lab.latency import report_on as latency_report


def test_equal_shares_and_prompt_renewals_are_fair() -> None:
    report = report_on([Share(1_000, (12,), 5.0), Share(900, (7_500,), 7.0)], 60)
    assert report.breaches == ()
    assert report.least_share == 0.947
    assert report.latest_renewal_ms == 7_500


def test_a_program_under_a_fifth_of_an_equal_share_is_named() -> None:
    report = report_on([Share(1_000, (1,), 5.0), Share(100, (1,), 5.0)], 60)
    assert report.breaches == ("program 1 completed 100, under 20% of an equal share of 550",)


def test_a_renewal_later_than_half_a_lease_is_named() -> None:
    report = report_on([Share(10, (1, 7_501), 5.0)], 60)
    assert report.breaches == ("a renewal was answered 7501 ms after it was due, later than 7500 ms",)


def test_leases_that_were_never_renewed_are_named() -> None:
    report = report_on([Share(10, (), 5.0)], 60)
    assert report.breaches == ("a program's leases were never renewed",)


def test_latency_is_judged_by_its_95th_percentile() -> None:
    prompt, slow = [5.0] * 95 + [30.0] * 5, [5.0] * 94 + [30.0] * 6
    assert latency_report(prompt[:-1], {}, 10).breaches == ()
    assert latency_report(slow, {}, 10).breaches == ("95 % of results came back within 30.0 ms, not within 20.0 ms",)


def test_an_idle_host_is_judged_by_its_statements() -> None:
    report = latency_report([1.0], {"SELECT 1": 19, "SELECT 2": 1}, 10)
    assert report.idle_statements_per_s == 2.0
    assert report.breaches == ("an idle host executes 2.0 statements a second, not fewer than 2.0",)
