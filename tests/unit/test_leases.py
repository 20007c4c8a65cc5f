"""F.3: expiry, fences, grants and keys, at the exact instant."""

from __future__ import annotations

import msgspec
import pytest

from perdure.clock import Moment
from perdure.errors import LeaseSuperseded
from perdure.ids import SystemIds
from perdure.model.leases import DeathProof, Lease, LeaseKey
from perdure.transitions.leases import check_key, extend, gates, grant, has_expired, is_held, next_fence, release
from tests.unit.situations import NOW, STARTED, A, B, lease, record, registration, started

PROOF = {"a-1": DeathProof("a-1", "pid_gone", "no such process")}


@pytest.mark.parametrize(("left_ms", "expired"), [(1, False), (0, True), (-1, True), (5_000, False)])
def test_now_equal_to_the_expiry_is_expired(left_ms: int, expired: bool) -> None:
    assert has_expired(lease(left_ms=left_ms), NOW) is expired


@pytest.mark.parametrize(
    ("boot_left_ms", "wall_left_ms", "boot_id", "expired"),
    [
        (1, -3_600_000, "boot-1", False),  # the wall clock was set forward
        (0, 3_600_000, "boot-1", True),  # the wall clock was set back
        (3_600_000, 3_600_000, "boot-0", True),  # another boot
        (-1, -1, "boot-0", True),
    ],
)
def test_only_the_boot_time_of_the_granting_boot_decides(
    boot_left_ms: int, wall_left_ms: int, boot_id: str, expired: bool
) -> None:
    stands = lease(boot_id=boot_id, boot_expires_ms=50_000 + boot_left_ms, expires_at_ms=100_000 + wall_left_ms)
    assert has_expired(stands, NOW) is expired


@pytest.mark.parametrize(
    ("stands", "proofs", "held", "gated"),
    [
        (None, {}, False, False),
        (lease(), {}, True, True),
        (lease(left_ms=0), {}, False, False),
        (lease(released=True), {}, False, True),
        (lease(released=True, left_ms=0), {}, False, False),
        (lease(), PROOF, False, False),
        (lease(owner=B), PROOF, True, True),
        (lease(released=True), PROOF, False, True),
    ],
)
def test_who_holds_and_what_gates_a_row(
    stands: Lease | None, proofs: dict[str, DeathProof], held: bool, gated: bool
) -> None:
    assert (is_held(stands, NOW, proofs), gates(stands, NOW, proofs)) == (held, gated)


def test_the_next_fence_is_one_more_than_any_that_the_row_or_its_lease_has_seen() -> None:
    never, seven = record(registration()), record(registration(), started(7))
    assert next_fence(never, None) == 1
    assert next_fence(seven, None) == 8
    assert next_fence(seven, lease(9)) == 10
    assert next_fence(seven, lease(3)) == 8


def test_a_grant_has_the_next_fence_and_expires_on_both_scales() -> None:
    granted = grant(record(registration(), STARTED), lease(left_ms=0), B, "secret", "claim-2", 15_000, NOW)
    assert granted == Lease("p", B, "secret", 2, "claim-2", 100_000, 115_000, "boot-1", 65_000)


def test_a_grant_to_another_incarnation_of_the_same_name_is_a_new_lease() -> None:
    newer = msgspec.structs.replace(A, incarnation="a-2")
    granted = grant(record(registration(), STARTED), lease(left_ms=0), newer, "secret", "claim-2", 15_000, NOW)
    assert (granted.fence, granted.token) == (2, "secret")


def test_re_entry_by_the_incarnation_that_holds_a_live_lease_keeps_token_and_fence() -> None:
    granted = grant(record(registration(), STARTED), lease(), A, "another", "claim-2", 15_000, NOW)
    assert (granted.fence, granted.token, granted.boot_expires_ms) == (1, "token-1", 65_000)


def test_a_renewal_moves_the_expiry_and_nothing_else_and_never_back() -> None:
    longer = extend(lease(), 15_000, NOW)
    assert longer == lease(expires_at_ms=115_000, boot_expires_ms=65_000)
    assert extend(longer, 1, NOW) == longer


def test_a_release_leaves_the_fence_and_gates_the_row_for_its_hold() -> None:
    given_back = release(lease(4), 1_000, NOW)
    assert (given_back.released, given_back.fence, given_back.boot_expires_ms) == (True, 4, 51_000)
    later = Moment(101_000, 51_000, "boot-1")
    assert (gates(given_back, NOW), gates(given_back, later)) == (True, False)
    assert not gates(release(lease(4), 0, NOW), NOW)


HELD = lease(2)


@pytest.mark.parametrize(
    ("stands", "presented", "holder"),
    [
        (HELD, HELD.key, "accepted"),
        (lease(2, left_ms=1), HELD.key, "accepted"),
        (lease(2, left_ms=0), HELD.key, "a"),
        (lease(2, boot_id="boot-0"), HELD.key, "a"),
        (lease(2, released=True), HELD.key, None),
        (None, HELD.key, None),
        (HELD, LeaseKey("p", "a-1", "token-2", 1), "a"),
        (HELD, LeaseKey("p", "a-1", "token-2", 3), "a"),
        (HELD, LeaseKey("p", "a-1", "token-1", 2), "a"),
        (HELD, LeaseKey("p", "b-1", "token-2", 2), "a"),
        (HELD, LeaseKey("q", "a-1", "token-2", 2), "a"),
    ],
)
def test_a_key_is_accepted_only_if_all_of_it_stands_and_is_live(
    stands: Lease | None, presented: LeaseKey, holder: str | None
) -> None:
    refused = check_key(stands, presented, NOW)
    if holder == "accepted":
        assert refused is None
    else:
        assert isinstance(refused, LeaseSuperseded)
        assert (refused.presented_fence, refused.standing_fence) == (presented.fence, stands.fence if stands else 0)
        assert refused.holder == holder


def test_tokens_are_long_random_and_never_the_same_twice() -> None:
    ids = SystemIds()
    tokens = {ids.token() for _ in range(10_000)}
    assert len(tokens) == 10_000
    assert {len(token) for token in tokens} == {22}  # 16 random bytes, in URL-safe base 64
    assert len({token[:4] for token in tokens}) > 9_900


def test_process_ids_sort_in_the_order_of_their_making() -> None:
    ids = SystemIds()
    made = [ids.process_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {id[14] for id in made} == {"7"}
