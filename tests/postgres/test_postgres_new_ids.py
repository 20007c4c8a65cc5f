"""Registrations are taken for new: the write itself finds those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import RegistrationConflict
from perdure.stores.postgres.committing import LOOKS_AFTER_MEETING
from perdure.stores.postgres.rows import PostgresRows
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
