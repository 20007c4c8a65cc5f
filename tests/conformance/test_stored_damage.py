"""What can't be read as it stands is a typed error that names it: never a guess, and never served as truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from perdure.codec import decode_fact
from perdure.errors import ChecksumMismatch, DecodeError, PerdureError, UnknownCodecVersion
from perdure.testing.conformance import Kit
from tests.conformance.stores import sqlite_opener

Test = Callable[[Kit], Awaitable[None]]


def damaged(folder: Path, statement: str, test: Test) -> None:
    """Two running processes, a suspended one and their logs; then the file is changed by hand, and opened again."""

    async def run() -> None:
        kit = Kit(sqlite_opener(folder), "damaged", frozenset({"reopenable"}))
        await kit.open()
        try:
            claimed = await kit.start("p")
            await kit.append("p", "note", {"text": "hello"}, execution=kit.execution(claimed))
            await kit.start("sound")
            await kit.close()
            connection = apsw.Connection(str(folder / "damaged.db"))
            connection.execute(statement)
            assert connection.changes() == 1
            connection.close()
            await kit.open()
            async with asyncio.timeout(30):
                await test(kit)
        finally:
            await kit.close()

    asyncio.run(run())


async def sound_row_still_works(kit: Kit) -> None:
    await kit.check_fold("sound")
    await kit.append("sound", "note")
    assert (await kit.get("sound")).status == "running"


OF_P = "(SELECT row FROM processes WHERE id = 'p')"


@pytest.mark.parametrize(
    ("statement", "kind", "named"),
    [
        (
            "UPDATE processes SET state = replace(state, '\"running\"', '\"walking\"') WHERE id = 'p'",
            DecodeError,
            "walking",
        ),
        ("UPDATE processes SET state = replace(state, '\"v\":1', '\"v\":2') WHERE id = 'p'", UnknownCodecVersion, "2"),
        ("UPDATE processes SET state = '{' WHERE id = 'p'", DecodeError, "'p'"),
        ("UPDATE processes SET state = CAST(x'7bf8' AS TEXT) WHERE id = 'p'", DecodeError, "'p'"),
        (f"UPDATE registrations SET body = CAST(x'7bf8' AS TEXT) WHERE row = {OF_P}", DecodeError, "damaged"),
        (
            f"UPDATE registrations SET body = replace(body, 'rerunnable', 'immortal') WHERE row = {OF_P}",
            DecodeError,
            "immortal",
        ),
        (
            f"UPDATE registrations SET body = replace(body, '\"v\":1', '\"v\":9') WHERE row = {OF_P}",
            UnknownCodecVersion,
            "9",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_a_typed_error_and_harms_no_other_row(
    tmp_path: Path, statement: str, kind: type[PerdureError], named: str
) -> None:
    async def test(kit: Kit) -> None:
        with pytest.raises(kind, match=named):
            await kit.get("p")
        with pytest.raises(kind):
            await kit.append("p", "note")
        with pytest.raises(kind):
            await kit.cancel("p")
        both = await asyncio.gather(kit.append("p", "note"), kit.append("sound", "note"), return_exceptions=True)
        assert isinstance(both[0], kind)
        assert not isinstance(both[1], BaseException)
        await sound_row_still_works(kit)
        kit.clock.advance(3_600)
        granted = [claimed.record.id for claimed in (await kit.claim("b")).claimed]
        assert granted == ["sound"]

    damaged(tmp_path, statement, test)


@pytest.mark.parametrize(
    "change",
    [
        "payload = replace(payload, 'hello', 'hellp')",
        "type = 'note2'",
        "at = at + 1",
        "replay_key = 'k'",
        "operation_id = 'o'",
        "checksum = checksum + 1",
        "sequence = 9",
    ],
)
def test_an_event_that_was_changed_in_the_file_is_found_and_never_served(tmp_path: Path, change: str) -> None:
    async def test(kit: Kit) -> None:
        with pytest.raises(ChecksumMismatch) as caught:
            await kit.log("p")
        assert caught.value.process_id == "p"
        with pytest.raises(ChecksumMismatch):
            await kit.registry.recent_events("p")
        await sound_row_still_works(kit)

    damaged(tmp_path, f"UPDATE events SET {change} WHERE row = {OF_P} AND sequence = 2", test)


def test_every_single_flipped_bit_of_an_event_is_found(tmp_path: Path) -> None:
    async def test(kit: Kit) -> None:
        with pytest.raises(DecodeError):
            await kit.log("p")
        await sound_row_still_works(kit)

    payload = b'{"text":"hello"}'
    for bit in range(0, len(payload) * 8, 13):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        folder = tmp_path / str(bit)
        folder.mkdir()
        statement = f"UPDATE events SET payload = CAST(x'{flipped.hex()}' AS TEXT) WHERE row = {OF_P} AND sequence = 2"
        damaged(folder, statement, test)


def test_a_damaged_event_that_a_command_names_harms_no_command_beside_it(tmp_path: Path) -> None:
    async def test(kit: Kit) -> None:
        answers = await asyncio.gather(
            kit.append("sound", "note", 1),
            kit.append("p", "note", {"text": "hello"}, replay_key="k"),
            kit.append("sound", "note", 2),
            return_exceptions=True,
        )
        assert isinstance(answers[1], DecodeError)
        assert not isinstance(answers[0], BaseException)
        assert not isinstance(answers[2], BaseException)

    for n, change in enumerate(("payload = '{}'", "payload = CAST(x'7bf8' AS TEXT)", "type = CAST(x'f8' AS TEXT)")):
        folder = tmp_path / str(n)
        folder.mkdir()
        damaged(folder, f"UPDATE events SET replay_key = 'k', {change} WHERE row = {OF_P} AND sequence = 2", test)


def test_an_event_of_a_newer_codec_is_refused_naming_both_versions(tmp_path: Path) -> None:
    async def test(kit: Kit) -> None:
        with pytest.raises(UnknownCodecVersion) as caught:
            await kit.log("p")
        assert (caught.value.fields["found"], caught.value.fields["known"]) == (7, 1)

    damaged(tmp_path, f"UPDATE events SET codec = 7 WHERE row = {OF_P} AND sequence = 2", test)


def test_a_reader_skips_event_types_that_it_does_not_know_but_a_fold_does_not(tmp_path: Path) -> None:
    """A type of a later version is an event like any other to whoever reads the log."""

    async def run() -> None:
        kit = Kit(sqlite_opener(tmp_path), "later", frozenset({"reopenable"}))
        await kit.open()
        await kit.register("p")
        await kit.append("p", "holiday.announced", {"days": 3})
        (event,) = await kit.log("p")
        assert event.type == "holiday.announced"
        later = type(event)("p", 2, "process.dreaming", event.payload, 0)
        with pytest.raises(UnknownCodecVersion, match=r"process\.dreaming"):
            decode_fact(later)
        await kit.close()

    asyncio.run(run())
