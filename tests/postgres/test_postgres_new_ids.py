"""Registrations are taken for new: the write itself finds those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from perdure.contract.moments import MomentName
from perdure.errors import OutcomeUnknown, RegistrationConflict
from perdure.stores.postgres.committing import LOOKS_AFTER_MEETING
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import READING_GOOD_FOR_MS
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import Receipt
from tests.postgres.worlds import register, run, world


@pytest.fixture
def looked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that were asked for before something was decided about them."""
    found: list[str] = []
    take = PostgresRows._take

    async def noted(self: PostgresRows, statement: str, ids: Sequence[str], seen_ids: Sequence[str] = ()) -> None:
        found.extend((*ids, *seen_ids))
        await take(self, statement, ids, seen_ids)

    monkeypatch.setattr(PostgresRows, "_take", noted)
    return found


def test_ids_that_nobody_has_are_written_without_a_look(tmp_path: Path, looked_for: list[str]) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            receipts: list[Any] = await w.registry.execute_all([register(f"p-{number}") for number in range(3)])
            assert [receipt.answer for receipt in receipts] == ["applied"] * 3
            assert looked_for == []

    run(test())


def test_what_stands_already_is_looked_for_then_and_answered_as_it_stands(
    tmp_path: Path, looked_for: list[str]
) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            peer = await w.peer()
            before: Receipt = await peer.execute(register("same"))
            await peer.execute(register("other", input=raw("theirs")))
            await peer.close()
            looked_for.clear()
            asked = [register("new"), register("same"), register("other", input=raw("ours"))]
            answers: list[Any] = await w.registry.execute_all(asked)
            new, same, other = answers
            assert (new.answer, same.answer) == ("applied", "unchanged")
            assert same.record == before.record
            assert isinstance(other, RegistrationConflict)
            assert sorted(looked_for) == ["other", "same"]
            assert await w.fetchval("SELECT count(*) FROM {s}.registrations") == 3

    run(test())


def test_for_a_while_after_that_ids_are_looked_for_first(tmp_path: Path, looked_for: list[str]) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            peer = await w.peer()
            await peer.execute(register("same"))
            await peer.close()
            await w.registry.execute(register("same"))
            looked_for.clear()
            for number in range(LOOKS_AFTER_MEETING + 3):
                await w.registry.execute(register(f"p-{number}"))
            assert looked_for == [f"p-{number}" for number in range(LOOKS_AFTER_MEETING - 1)]

    run(test())


def test_many_at_once_that_are_all_told_to_be_new_make_each_process_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            peers = [await w.peer() for _ in range(4)]
            ids = [f"p-{number}" for number in range(40)]
            answers: Any = await asyncio.gather(*(peer.execute_all([register(id) for id in ids]) for peer in peers))
            for peer in peers:
                await peer.close()
            for told in zip(*answers, strict=True):
                assert sorted(receipt.answer for receipt in told) == ["applied", "unchanged", "unchanged", "unchanged"]
                assert all(receipt.record == told[0].record for receipt in told)

    run(test())


class LostAnswer:
    """Loses the connection once, at the first end of a commit after it was armed."""

    def __init__(self) -> None:
        self.armed = False

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if self.armed and moment == "commit.after":
            self.armed = False
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def test_when_the_answer_of_a_registration_is_lost_asking_again_finds_it(tmp_path: Path) -> None:
    async def test() -> None:
        lost = LostAnswer()
        async with world(tmp_path, moments=lost) as w:
            lost.armed = True
            with pytest.raises(OutcomeUnknown):
                await w.registry.execute(register("p"))
            again: Receipt = await w.registry.execute(register("p"))
            assert (again.answer, again.replayed) == ("unchanged", False)
            assert await w.fetchval("SELECT count(*) FROM {s}.processes") == 1

    run(test())


def test_a_row_whose_answer_was_lost_is_found_by_the_next_look_like_anothers(tmp_path: Path) -> None:
    async def test() -> None:
        lost = LostAnswer()
        async with world(tmp_path, moments=lost) as w:
            assert await w.registry.peer_changes() == ()
            lost.armed = True
            with pytest.raises(OutcomeUnknown):
                await w.registry.execute(register("p"))
            assert await w.registry.peer_changes() is None
            assert await w.registry.peer_changes() == ()

    run(test())


def test_whether_nothing_was_committed_need_not_be_known(tmp_path: Path) -> None:
    async def test() -> None:
        lost = LostAnswer()
        async with world(tmp_path, moments=lost) as w:
            first = await w.register("p")
            lost.armed = True
            again = await w.register("p")
            assert (again.answer, again.record) == ("unchanged", first.record)
            await w.claim("a")
            lost.armed = True
            assert (await w.claim("b")).claimed == ()
            assert not lost.armed

    run(test())


def test_a_server_whose_clock_went_back_is_asked_for_the_time(tmp_path: Path, looked_for: list[str]) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            w.registry._shared.time._ahead_ms = [
                (at, ahead + 3_600_000) for at, ahead in w.registry._shared.time._ahead_ms
            ]
            receipt = await w.register("p")
            server_ms = await w.fetchval("SELECT {s}.now_ms()")
            assert abs(receipt.record.state.created_at_ms - server_ms) < 60_000
            assert await w.fetchval("SELECT ready_at FROM {s}.processes") <= server_ms

    run(test())


def test_without_a_fresh_reading_of_the_clock_ids_are_looked_for(tmp_path: Path, looked_for: list[str]) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            time = w.registry._shared.time
            time._ahead_ms = [(at - READING_GOOD_FOR_MS - 1, ahead) for at, ahead in time._ahead_ms]
            await w.register("p")
            assert looked_for == ["p"]
            await w.register("q")
            assert looked_for == ["p"], "the look has brought one"

    run(test())


def test_nothing_asked_is_answered_with_nothing_and_holds_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            nothing, something = await asyncio.gather(
                w.registry.execute_together(()), w.registry.execute_together((register("p"),))
            )
            assert (nothing, len(something)) == ([], 1)

    run(test())
