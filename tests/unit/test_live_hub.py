"""Live output in one program: what reaches a follower, in which order, and what it is told of the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from perdure.contract.live import RECENT_CHUNKS, Backlog
from perdure.contract.verbs import as_raw
from perdure.errors import InvalidOption
from perdure.model.live import Chunk, check_channel
from perdure.runtime.live import Follower, LiveHub, RunOutput
from perdure.stores.live import LocalWire
from perdure.testing.loop import run_simulation


def simulate(story: Callable[[LiveHub], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await story(LiveHub(LocalWire()))

    run_simulation(main)


def say(run: RunOutput, *words: object, channel: str = "tokens", step: str | None = None) -> None:
    for word in words:
        run.publish(channel, as_raw(word), step)


def heard(follower: Follower) -> list[tuple[object, int, int]]:
    """What it has not taken yet: value, number and how many it missed before."""
    return [(chunk.value, chunk.number, chunk.missed) for chunk in follower.take()]


def test_a_follower_hears_everything_in_order_and_where_it_comes_from() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 2, 7)
        with hub.following("p", (), 10) as follower:
            run.publish("tokens", as_raw("a"), "ask")
            run.publish("lines", as_raw({"level": 1}), None)
            run.publish("tokens", as_raw("b"), "ask#2")
            assert await follower.rung()
            assert follower.take() == [
                Chunk("p", "tokens", msgspec.Raw(b'"a"'), 2, 7, 1, "ask"),
                Chunk("p", "lines", msgspec.Raw(b'{"level":1}'), 2, 7, 1, None),
                Chunk("p", "tokens", msgspec.Raw(b'"b"'), 2, 7, 2, "ask#2"),
            ]
            assert follower.take() == []

    simulate(story)


def test_a_follower_hears_only_its_channels_and_its_process() -> None:
    async def story(hub: LiveHub) -> None:
        run, other = hub.open_run("p", 1, 1), hub.open_run("q", 1, 1)
        with hub.following("p", ("tokens", "log"), 10) as follower:
            say(run, "a", channel="tokens")
            say(run, "b", channel="lines")
            say(run, "c", channel="log")
            say(other, "d")
            assert heard(follower) == [("a", 1, 0), ("c", 1, 0)]

    simulate(story)


def test_a_follower_that_is_too_slow_loses_the_oldest_and_is_told_how_many() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 3) as follower:
            say(run, *range(10))
            assert heard(follower) == [(7, 8, 7), (8, 9, 0), (9, 10, 0)]
            say(run, *range(10, 15))
            assert heard(follower) == [(12, 13, 2), (13, 14, 0), (14, 15, 0)]

    simulate(story)


def test_what_a_slow_follower_keeps_is_bounded_in_bytes_as_well() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 100_000) as follower:
            say(run, *("x" * 60_000 for _ in range(200)))
            kept = follower.take()
            assert 130 < len(kept) < 145  # 8 MiB
            assert kept[0].missed == 200 - len(kept)

    simulate(story)


def test_who_comes_late_hears_what_was_said_lately_and_how_much_is_missing_before_it() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        say(run, *range(RECENT_CHUNKS + 44))
        with hub.following("p", (), 1_000) as follower:
            say(run, "now")
            words = heard(follower)
        assert words[0] == (44, 45, 44)
        assert [missed for _, _, missed in words[1:]] == [0] * RECENT_CHUNKS
        assert words[-1] == ("now", RECENT_CHUNKS + 45, 0)

    simulate(story)


def test_of_what_is_large_less_is_kept_for_who_comes_late() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        say(run, *("x" * 40_000 for _ in range(10)))
        with hub.following("p", (), 1_000) as follower:
            assert [number for _, number, _ in heard(follower)] == [8, 9, 10]

    simulate(story)


def test_what_a_superseded_run_still_says_is_left_out_and_a_new_run_counts_from_one() -> None:
    async def story(hub: LiveHub) -> None:
        old = hub.open_run("p", 1, 4)
        with hub.following("p", (), 10) as follower:
            say(old, "a", "b")
            new = hub.open_run("p", 2, 5)
            say(new, "c")
            say(old, "late")
            say(new, "d")
            found = [(c.value, c.attempt, c.fence, c.number, c.missed) for c in follower.take()]
        assert found == [("a", 1, 4, 1, 0), ("b", 1, 4, 2, 0), ("c", 2, 5, 1, 0), ("d", 2, 5, 2, 0)]

    simulate(story)


def test_what_comes_twice_is_given_once() -> None:
    async def story(hub: LiveHub) -> None:
        follower = Follower((), 10)
        chunks = [Chunk("p", "tokens", as_raw(number), 1, 1, number) for number in range(1, 4)]
        for chunk in (*chunks[:2], *chunks):
            follower.offer(chunk)
        assert [chunk.number for chunk in follower.take()] == [1, 2, 3]
        follower.offer(chunks[0])
        assert follower.take() == []

    simulate(story)


def test_a_run_that_is_over_says_nothing_more_and_is_forgotten() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        say(run, "a")
        run.close()
        run.close()
        with hub.following("p", (), 10) as follower:
            say(run, "b")
            assert heard(follower) == []
        assert hub._runs == {}

    simulate(story)


def test_after_its_block_a_follower_hears_nothing() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 10) as first, hub.following("p", (), 10) as second:
            say(run, "a")
        with hub.following("p", (), 10) as third:
            say(run, "b")
        assert [heard(follower) for follower in (first, second, third)] == [
            [("a", 1, 0)], [("a", 1, 0)], [("a", 1, 0), ("b", 2, 0)],
        ]  # fmt: skip

    simulate(story)


def test_who_waits_is_rung_once_for_all_that_has_come_and_again_for_what_comes_next() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 10) as follower:
            assert not await follower.rung(1.0)
            say(run, "a", "b")
            assert await follower.rung(1.0)
            assert heard(follower) == [("a", 1, 0), ("b", 2, 0)]
            assert not await follower.rung(1.0)
            asyncio.get_running_loop().call_later(5, say, run, "c")
            assert await follower.rung()
            assert asyncio.get_running_loop().time() == 7.0

    simulate(story)


def test_a_follower_waits_for_the_rest_of_a_run_and_no_longer_than_it_was_told() -> None:
    async def story(hub: LiveHub) -> None:
        loop = asyncio.get_running_loop()
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 10) as follower:
            await follower.until_run_over(5.0)
            assert loop.time() == 0.0  # nothing was said: there is no rest
            say(run, "a")
            loop.call_later(1.0, run.close)
            await follower.until_run_over(5.0)
            assert loop.time() == 1.0
            say(hub.open_run("p", 2, 2), "b")
            await follower.until_run_over(5.0)
            assert loop.time() == 6.0

    simulate(story)


def test_a_run_that_never_falls_silent_keeps_a_follower_no_longer_than_it_was_told() -> None:
    async def story(hub: LiveHub) -> None:
        loop = asyncio.get_running_loop()
        run = hub.open_run("p", 1, 1)

        def go_on() -> None:
            say(run, "more")
            loop.call_later(0.1, go_on)

        with hub.following("p", (), 1_000) as follower:
            go_on()
            await follower.until_run_over(5.0)
            assert loop.time() == 5.0

    simulate(story)


def test_many_threads_that_publish_reach_a_follower_in_the_order_of_the_numbers() -> None:
    async def main() -> None:
        hub = LiveHub(LocalWire())
        run = hub.open_run("p", 1, 1)
        with hub.following("p", (), 100_000) as follower:
            threads = [threading.Thread(target=say, args=(run, *range(500))) for _ in range(8)]
            for thread in threads:
                thread.start()
            found: list[Chunk] = []
            async with asyncio.timeout(30):
                while len(found) < 4_000:
                    await follower.rung()
                    found += follower.take()
            for thread in threads:
                thread.join()
        assert [chunk.number for chunk in found] == list(range(1, 4_001))
        assert all(chunk.missed == 0 for chunk in found)

    asyncio.run(main())


def test_a_run_has_a_hundred_channels_and_no_more() -> None:
    async def story(hub: LiveHub) -> None:
        run = hub.open_run("p", 1, 1)
        for number in range(100):
            say(run, "a", channel=f"c{number}")
        say(run, "b", channel="c0")
        with pytest.raises(InvalidOption) as refused:
            say(run, "a", channel="one more")
        assert refused.value.allowed == "at most 100 different ones in one run"

    simulate(story)


@pytest.mark.parametrize("channel", ["", "x" * 101, "perdure.progress", "a\nb", 3, None, "\ud800"])
def test_what_is_no_channel_is_refused(channel: object) -> None:
    with pytest.raises(InvalidOption) as refused:
        check_channel(channel)
    assert refused.value.option == "channel"


@pytest.mark.parametrize("channel", ["tokens", "x" * 100, "log lines", "perdure", "détails"])
def test_what_is_a_channel_is_given_back(channel: str) -> None:
    assert check_channel(channel) == channel


def chunks(*sizes: int) -> Sequence[Chunk]:
    return [Chunk("p", "c", as_raw("x" * size), 1, 1, number) for number, size in enumerate(sizes, 1)]


def test_a_backlog_gives_what_fits_and_one_at_least() -> None:
    backlog = Backlog(10, 100_000)
    for chunk in chunks(10, 5_000, 10, 10):
        backlog.add(chunk)
    taken = [[chunk.number for chunk in backlog.take(1_000)] for _ in range(4)]
    assert taken == [[1], [2], [3, 4], []]
    assert len(backlog) == 0


def test_a_backlog_that_was_emptied_takes_as_much_as_a_new_one() -> None:
    backlog = Backlog(10, 3_000)
    for _ in range(3):
        for chunk in chunks(1_000, 1_000, 1_000):
            backlog.add(chunk)
        assert [chunk.number for chunk in backlog.all()] == [2, 3]
        backlog.take()
    for chunk in chunks(1_000, 1_000):
        backlog.add(chunk)
    backlog.clear()
    assert backlog.all() == []
