"""What a store remembers of registrations is bounded in bytes, and what is used stays."""

from __future__ import annotations

from msgspec import Raw

from perdure.model.registration import Definition, Registration
from perdure.stores.registration_cache import OVERHEAD_BYTES, RegistrationCache


def registration(id: str, input_bytes: int) -> Registration:
    return Registration(
        id=id, definition=Definition("python", "work"), recovery="rerunnable", input=Raw(b"1" * input_bytes)
    )


def filled(*ids: str, room: int) -> RegistrationCache[str, str]:
    cache: RegistrationCache[str, str] = RegistrationCache(room)
    for id in ids:
        cache.put(id, id.upper(), registration(id, 1_000))
    return cache


def test_the_least_recently_used_leave_first() -> None:
    names = [f"p{n}" for n in range(16)]
    cache = filled(*names, room=16 * (OVERHEAD_BYTES + 1_000))
    assert cache.get("p0") == "P0"
    cache.put("another", "ANOTHER", registration("another", 1_000))
    assert cache.get("p1") is None
    assert [cache.get(id) for id in ("p0", "p2", "p15", "another")] == ["P0", "P2", "P15", "ANOTHER"]


def test_what_would_take_too_much_room_is_not_kept_and_no_older_one_in_its_place() -> None:
    cache = filled("p", room=8 * (OVERHEAD_BYTES + 1_000))
    cache.put("p", "LARGER", registration("p", 1_001))
    assert cache.get("p") is None
    cache.put("q", "Q", registration("q", 1_000))
    assert cache.get("q") == "Q"


def test_what_is_known_anew_takes_the_room_of_one() -> None:
    cache = filled("p", "q", room=16 * (OVERHEAD_BYTES + 1_000))
    for n in range(100):
        cache.put("p", str(n), registration("p", 1_000))
    assert (cache.get("p"), cache.get("q")) == ("99", "Q")
