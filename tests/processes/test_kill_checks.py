"""The kill lab's checks can fail: each promise, broken on purpose in a small history, is told as a story."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from lab.kills.checks import History, breaches
from lab.kills.ledgers import Entry, StartAnswered, StartAsked
from lab.kills.work import Work, define_work
from lab.ledger import Ledger
from perdure.host import Host
from perdure.model.events import ProcessStarted

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> History:
    """One rerunnable and one owner_bound process, run once each."""
    entries = Ledger(tmp_path_factory.mktemp("ledger") / "entries.jsonl", Entry)

    async def story() -> History:
        host = Host("memory://")
        incarnations: list[str] = []
        work = define_work(host, entries, lambda: incarnations[0])
        async with asyncio.timeout(10), host:
            assert host.worker is not None
            incarnations.append(host.worker.owner.incarnation)
            for kind in ("quick", "bound"):
                run = await host.start(work[kind], Work(1), id=kind)
                await run.result()
            records = {id: await host.registry.get(id) for id in ("quick", "bound")}
            logs = {id: (await host.registry.events_after(id, 0)).events for id in records}
        asked = [StartAsked(id, id) for id in records]
        return History(asked, [StartAnswered(id) for id in records], entries.read(), records, logs)

    return asyncio.run(story())


def test_a_sound_history_has_no_breach(sound: History) -> None:
    assert breaches(sound) == []


def test_an_acknowledged_start_without_a_row_is_found(sound: History) -> None:
    history = replace(sound, answered=[*sound.answered, StartAnswered("lost")])
    assert breaches(history) == ["the start of lost was acknowledged and its row is gone"]


def test_a_row_that_nobody_asked_for_is_found(sound: History) -> None:
    assert breaches(replace(sound, asked=sound.asked[:1])) == ["bound has a row and nobody asked for it"]


def test_a_refused_start_is_found(sound: History) -> None:
    history = replace(sound, answered=[*sound.answered, StartAnswered("quick", "StoreLocked: …")])
    assert breaches(history) == ["the start of quick was refused: StoreLocked: …"]


def test_owner_bound_work_that_was_entered_twice_is_found(sound: History) -> None:
    entry = entry_of(sound, "bound")
    again = replace(entry, fence=2, boot_ms=entry.boot_ms + 1, attempt=2)
    assert any("is owner_bound and was entered 2 times" in b for b in breaches(with_entry(sound, again)))


def test_an_entry_that_the_log_does_not_explain_is_found(sound: History) -> None:
    entry = entry_of(sound, "quick")
    again = replace(entry, fence=2, boot_ms=entry.boot_ms + 1, attempt=2)
    (breach,) = breaches(with_entry(sound, again))
    assert breach.startswith("quick (quick): was entered under fence 2")


def test_an_entry_after_the_local_deadline_is_found(sound: History) -> None:
    late = [replace(e, boot_ms=e.deadline_ms) if e.process_id == "quick" else e for e in sound.entries]
    (breach,) = breaches(replace(sound, entries=late))
    assert "covered until" in breach


def test_two_entries_under_one_fence_are_found(sound: History) -> None:
    found = breaches(with_entry(sound, entry_of(sound, "quick")))
    assert found == [
        "quick (quick): fence 1 entered it after fence 1 had",
        "quick (quick): was entered twice under fence 1",
    ]


def test_a_second_terminal_event_is_found(sound: History) -> None:
    log = sound.logs["quick"]
    end = replace(log[-1], sequence=log[-1].sequence + 1)
    (count, *_) = breaches(replace(sound, logs={**sound.logs, "quick": [*log, end]}))
    assert count.startswith("quick (quick): has 2 terminal events [2, 3]")


def test_a_record_that_is_not_the_fold_of_its_log_is_found(sound: History) -> None:
    record = sound.records["quick"]
    wrong = replace(record, state=replace(record.state, attempt=2))
    (breach,) = breaches(replace(sound, records={**sound.records, "quick": wrong}))
    assert breach.startswith("quick (quick): its record is not the fold of its log")


def test_a_start_without_a_cause_is_found(sound: History) -> None:
    first, end = sound.logs["quick"]
    fact = msgspec.json.decode(first.payload, type=ProcessStarted)
    again = replace(first, sequence=2, payload=msgspec.Raw(msgspec.json.encode(replace(fact, fence=2, attempt=2))))
    history = replace(sound, logs={**sound.logs, "quick": [first, again, replace(end, sequence=3)]})
    assert any("start 2 (fence 2) has no cause: fence 1 stood" in breach for breach in breaches(history))


def entry_of(history: History, process_id: str) -> Entry:
    return next(entry for entry in history.entries if entry.process_id == process_id)


def with_entry(history: History, entry: Entry) -> History:
    return replace(history, entries=[*history.entries, entry])
