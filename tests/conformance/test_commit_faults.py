"""A commit that fails: every caller is told, nothing is half-written, and the commands after it are done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec
import pytest

from perdure.clock import Clock
from perdure.contract.moments import MomentName
from perdure.contract.registry import Registry
from perdure.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from perdure.stores.memory import MemoryRegistry
from perdure.stores.memory_rows import MemoryRows
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.testing.conformance import Kit
from perdure.testing.conformance.kit import registration
from perdure.transitions.commands import AppendEvent, Command, Register


class FailingCommits:
    """Raises `error` once, at the first `moment` after it was armed."""

    def __init__(self) -> None:
        self.armed: tuple[MomentName, Exception] | None = None

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if self.armed is not None and self.armed[0] == moment:
            error, self.armed = self.armed[1], None
            raise error


class FaultyWorld:
    def __init__(self, folder: Path) -> None:
        self.commits = FailingCommits()

        async def open_store(clock: Clock, store: str) -> Registry:
            path = folder / f"{store}.db"
            return cast("Registry", await SqliteRegistry.open(path, clock=clock, moments=self.commits))

        self.kit = Kit(open_store, "faults", frozenset({"reopenable"}))

    async def __aenter__(self) -> FaultyWorld:
        await self.kit.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kit.check_all_folds()
        await self.kit.reopen()
        await self.kit.check_all_folds()
        await self.kit.close()

    def fail(self, moment: MomentName, error: Exception) -> None:
        self.commits.armed = moment, error


def within_bound(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


def register(id: str) -> Command:
    return Register(process_id=id, registration=registration(id))


@pytest.mark.parametrize(
    ("error", "told"),
    [(apsw.FullError("full"), StoreFull), (apsw.IOError("disk"), StoreError), (apsw.BusyError("busy"), StoreError)],
)
def test_when_a_commit_fails_every_caller_is_told_and_the_next_commands_are_done(
    tmp_path: Path, error: Exception, told: type[StoreError]
) -> None:
    async def test() -> None:
        async with FaultyWorld(tmp_path) as world:
            kit = world.kit
            claimed = await kit.start("p")
            world.fail("commit.before", error)
            answers = await asyncio.gather(
                kit.append("p", "note"), kit.complete("p", claimed), kit.register("q"), return_exceptions=True
            )
            assert [isinstance(answer, told) for answer in answers] == [True, True, True], answers
            assert await kit.types("p") == ["process.started"]
            assert await kit.registry.count() == 1
            await kit.complete("p", claimed)
            await kit.register("q")
            assert (await kit.get("p")).status == "completed"
            assert await kit.registry.count() == 2

    within_bound(test())


def test_when_the_answer_of_a_commit_is_lost_asking_again_by_operation_id_tells_which(tmp_path: Path) -> None:
    async def test() -> None:
        async with FaultyWorld(tmp_path) as world:
            kit = world.kit
            claimed = await kit.start("p")
            world.fail("commit.after", apsw.IOError("lost"))
            with pytest.raises(OutcomeUnknown):
                await kit.complete("p", claimed, operation_id="op-1")
            written = await kit.complete("p", claimed, operation_id="op-1")
            assert written.answer == "applied"
            assert [event.type for event in written.events] == ["process.completed"]
            await kit.register("q")
            second = await kit.claim_one()
            world.fail("commit.before", apsw.IOError("lost"))
            with pytest.raises(OutcomeUnknown):
                await kit.complete("q", second, operation_id="op-2")
            assert (await kit.get("q")).status == "running"
            await kit.complete("q", second, operation_id="op-2")
            assert await kit.types("q") == ["process.started", "process.completed"]

    within_bound(test())


def test_when_the_answer_of_a_claim_is_lost_its_claim_id_returns_the_rows(tmp_path: Path) -> None:
    async def test() -> None:
        async with FaultyWorld(tmp_path) as world:
            kit = world.kit
            for n in range(6):
                await kit.register(f"p{n}", recovery="owner_bound")
            moments: tuple[MomentName, ...] = ("commit.after", "commit.before")
            for moment in moments:
                command = kit.claim_command(limit=3)
                world.fail(moment, apsw.IOError("lost"))
                with pytest.raises(OutcomeUnknown):
                    await kit.registry.execute(command)
                receipt = await kit.registry.execute(command)
                assert len(receipt.claimed) == 3
                for claimed in receipt.claimed:
                    await kit.complete(claimed.record.id, claimed)
            for n in range(6):
                record = await kit.get(f"p{n}")
                assert (record.status, record.attempt) == ("completed", 1)

    within_bound(test())


def test_in_memory_a_failed_commit_leaves_nothing_behind_either(tmp_path: Path) -> None:
    class FailingRows(MemoryRows):
        fails = False

        async def commit(self) -> None:
            if self.fails:
                raise StoreUnavailable("memory://", "the commit failed on purpose", "Try again.")
            await super().commit()

    async def open_store(clock: Clock, store: str) -> Registry:
        registry = MemoryRegistry(clock)
        registry.rows = rows = FailingRows(clock)
        made.append(rows)
        return cast("Registry", registry)

    made: list[FailingRows] = []

    async def test() -> None:
        kit = Kit(open_store, "faults", frozenset())
        await kit.open()
        claimed = await kit.start("p")
        await kit.register("q")
        before = [await kit.get("p"), await kit.get("q"), await kit.lease("p"), await kit.log("p")]
        made[0].fails = True
        with pytest.raises(StoreUnavailable):
            await kit.registry.execute_all(
                [register("r"), kit.complete_command("p", claimed), kit.claim_command("b"), register("s")]
            )
        made[0].fails = False
        assert [await kit.get("p"), await kit.get("q"), await kit.lease("p"), await kit.log("p")] == before
        assert await kit.registry.count() == 2
        assert await kit.registry.get_lease("q") is None
        await kit.complete("p", claimed)
        await kit.check_all_folds()

    within_bound(test())


def test_a_payload_that_is_no_text_at_all_harms_no_command_beside_it(tmp_path: Path) -> None:
    """Payloads are checked where they come in; a registry handed other bytes fails that command alone."""

    async def test() -> None:
        async with FaultyWorld(tmp_path) as world:
            kit = world.kit
            await kit.register("p")
            bytes_alone = AppendEvent(process_id="p", type="note", payload=msgspec.Raw(b"\xff"))
            answers = await asyncio.gather(
                kit.append("p", "note", 1), kit.registry.execute(bytes_alone), kit.append("p", "note", 2),
                return_exceptions=True,
            )  # fmt: skip
            assert [isinstance(answer, BaseException) for answer in answers] == [False, True, False]
            assert await kit.types("p") == ["note", "note"]

    within_bound(test())


def test_a_write_that_the_database_itself_refuses_harms_no_command_beside_it(tmp_path: Path) -> None:
    """No command breaks a constraint of the schema, so the file itself is made to refuse one."""

    async def test() -> None:
        async with FaultyWorld(tmp_path) as world:
            kit = world.kit
            await kit.register("p")
            other = apsw.Connection(str(tmp_path / "faults.db"))
            other.execute(
                "CREATE TRIGGER spoil BEFORE INSERT ON processes WHEN NEW.id = 'bad' "
                "BEGIN SELECT RAISE(ABORT, 'spoilt on purpose'); END"
            )
            other.close()
            ids = [f"good{n}" for n in range(20)]
            asked = [kit.registry.execute(register(id)) for id in [*ids[:10], "bad", *ids[10:]]]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            refused = [n for n, answer in enumerate(answers) if isinstance(answer, BaseException)]
            assert refused == [10]
            assert isinstance(answers[10], StoreError)
            assert await kit.registry.count() == 21

    within_bound(test())
