"""Section A, the log: events in order, each said once, and batches that are whole."""

from __future__ import annotations

import asyncio

import msgspec

from perdure.errors import (
    InvalidPayload,
    LeaseSuperseded,
    PerdureError,
    ProcessAlreadyTerminal,
    RegistrationConflict,
    ReplayKeyConflict,
    ReservedEventType,
    UndeclaredType,
    UnknownProcess,
)
from perdure.model.events import Event
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit, raw, registration
from perdure.transitions.commands import AppendEvent, Command, Receipt, Register

COUNTED = msgspec.Raw(b'{"type":"object","properties":{"done":{"type":"integer"}},"required":["done"]}')
ANYTHING = msgspec.Raw(b"{}")


@case("A.4", "a replay key with equal content is the stored event, with other content a conflict")
async def replay_keys(kit: Kit) -> None:
    await kit.register("p")
    first = await kit.append("p", "note", {"a": 0.0, "b": [1]}, replay_key="k")
    kit.clock.advance(1)
    again = await kit.append("p", "note", {"b": [1], "a": -0.0}, replay_key="k")
    expect_equal((again.answer, again.events), ("unchanged", first.events), "equal content under the same key")
    expect_equal(first.events[0].sequence, 1, "the sequence of the first event")
    for type, value in (("note", {"a": 1.0, "b": [1]}), ("other", {"a": 0.0, "b": [1]})):
        with refusal(ReplayKeyConflict, f"other content: {type} {value}") as caught:
            await kit.append("p", type, value, replay_key="k")
        expect_equal((caught.error.replay_key, caught.error.sequence), ("k", 1), "the key and the event that stands")
    await kit.append("p", "note", {"a": 1.0, "b": [1]}, replay_key="K")
    expect_equal([e.replay_key for e in await kit.log("p")], ["k", "K"], "the keys in the log")


@case("A.4b", "a replay key is found again within its own batch, after the end, and not in another process")
async def replay_keys_everywhere(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.register("q")
    said = AppendEvent(process_id="p", type="note", payload=raw(1), replay_key="k")
    other = AppendEvent(process_id="p", type="note", payload=raw(2), replay_key="k")
    first, second, third = await kit.registry.execute_together((said, said, other))
    expect(isinstance(first, Receipt) and isinstance(second, Receipt), "both equal appends are answered")
    expect_equal(getattr(second, "events", None), getattr(first, "events", ()), "the events answered")
    expect(isinstance(third, ReplayKeyConflict), "other content in the same batch is a conflict")
    await kit.complete("p", claimed)
    again = await kit.append("p", "note", 1, replay_key="k")
    expect_equal(again.events, getattr(first, "events", ()), "the event, asked again after the end")
    with refusal(ProcessAlreadyTerminal, "a new event after the end"):
        await kit.append("p", "note", 1)
    expect_equal((await kit.append("q", "note", 3, replay_key="k")).answer, "applied", "the key in another process")


@case("A.4c", "a signal id is delivered once, and refused with other content")
async def signal_ids(kit: Kit) -> None:
    await kit.register("p", signals={"go": ANYTHING})
    first = await kit.signal("p", "go", {"n": 1}, "s-1")
    again = await kit.signal("p", "go", {"n": 1}, "s-1")
    expect_equal((again.answer, again.events), ("unchanged", first.events), "the same signal again")
    with refusal(ReplayKeyConflict, "another payload under the same signal id"):
        await kit.signal("p", "go", {"n": 2}, "s-1")
    await kit.signal("p", "go", {"n": 1})
    expect_equal((await kit.get("p")).state.signals, {"go": 2}, "the signals accepted")


RUNTIME_TYPES = (
    "process.started", "process.completed", "process.anything", "signal.go", "step.completed", "timer.set",
    "wait.resolved", "race.decided", "cancel.delivered", "child.started", "version.marked", "value.recorded",
)  # fmt: skip


@case("A.5", "types that belong to the runtime are refused by name; its execution may write the journal's")
async def reserved_types(kit: Kit) -> None:
    claimed = await kit.start("p", signals={"go": ANYTHING})
    for type in RUNTIME_TYPES:
        with refusal(ReservedEventType, f"a host's event {type}") as caught:
            await kit.append("p", type)
        expect_equal(caught.error.event_type, type, "the type named")
        if type.startswith(("process.", "signal.")):
            with refusal(ReservedEventType, f"an execution's event {type}"):
                await kit.append("p", type, execution=kit.execution(claimed))
        else:
            await kit.append("p", type, execution=kit.execution(claimed))
    expect_equal(await kit.types("p"), ["process.started", *RUNTIME_TYPES[4:]], "the log")


@case("A.5b", "an event or signal outside its declared schema is refused with the path")
async def declared_schemas(kit: Kit) -> None:
    await kit.register("p", event_types={"progress": COUNTED}, signals={"go": COUNTED})
    with refusal(InvalidPayload, "an event outside its schema") as caught:
        await kit.append("p", "progress", {"done": "three"})
    expect_equal(caught.error.path, "$.done", "the path of the offence")
    with refusal(InvalidPayload, "a signal outside its schema") as caught:
        await kit.signal("p", "go", {"done": None})
    expect_equal(caught.error.path, "$.done", "the path of the offence")
    with refusal(UndeclaredType, "a signal that is not declared") as undeclared:
        await kit.signal("p", "stop")
    expect_equal((undeclared.error.name, undeclared.error.declared), ("stop", ("go",)), "what is undeclared")
    expect_equal(await kit.types("p"), [], "the log")
    await kit.append("p", "progress", {"done": 3})
    await kit.signal("p", "go", {"done": 3})
    expect_equal(await kit.types("p"), ["progress", "signal.go"], "the log")


@case("A.5c", "an event for a process that does not exist is refused, and creates nothing")
async def events_of_unknown_processes(kit: Kit) -> None:
    with refusal(UnknownProcess, "an append"):
        await kit.append("nobody", "note")
    with refusal(UnknownProcess, "a read of the log"):
        await kit.registry.events_after("nobody", 0)
    with refusal(UnknownProcess, "a read of the record"):
        await kit.get("nobody")
    expect_equal(await kit.registry.count(), 0, "the number of rows")


@case("A.6", "sequences have no gaps under 48 concurrent writers")
async def sequences_have_no_gaps(kit: Kit) -> None:
    await kit.register("p")

    async def write(writer: int) -> list[Event]:
        return [(await kit.append("p", "note", [writer, n])).events[0] for n in range(5)]

    written = await asyncio.gather(*(write(writer) for writer in range(48)))
    expect_equal([e.sequence for e in await kit.log("p")], list(range(1, 241)), "the sequences")
    for events in written:
        sequences = [event.sequence for event in events]
        expect_equal(sequences, sorted(sequences), "one writer's events, in the order of its calls")


@case("A.6b", "sequences have no gaps when several registries write", needs=("multi_process",))
async def sequences_over_several_registries(kit: Kit) -> None:
    await kit.register("p")
    registries = [kit.registry, await kit.peer(), await kit.peer()]
    note = AppendEvent(process_id="p", type="note", payload=raw(None))
    await asyncio.gather(*(registry.execute(note) for registry in registries for _ in range(16)))
    expect_equal([e.sequence for e in await kit.log("p")], list(range(1, 49)), "the sequences")


@case("A.9", "a log is paged without loss or repeat while somebody appends")
async def paging_while_appending(kit: Kit) -> None:
    await kit.register("p")
    await asyncio.gather(*(kit.append("p", "note", n) for n in range(20)))
    seen: list[Event] = []

    async def read() -> None:
        while len(seen) < 60:
            page = await kit.registry.events_after("p", seen[-1].sequence if seen else 0, 7)
            expect(len(page.events) <= 7, "a page holds at most the limit")
            seen.extend(page.events)
            await kit.pause()

    async def write() -> None:
        for n in range(20, 60):
            await kit.append("p", "note", n)

    await asyncio.gather(read(), write())
    expect_equal(seen, list(await kit.log("p")), "the events read page by page")
    page = await kit.registry.events_after("p", 53, 7)
    expect_equal(([e.sequence for e in page.events], page.more), ([54, 55, 56, 57, 58, 59, 60], False), "the last page")
    page = await kit.registry.events_after("p", 52, 7)
    expect_equal((len(page.events), page.more), (7, True), "a full page before the last event")
    recent = await kit.registry.recent_events("p", 3)
    expect_equal([e.sequence for e in recent.events], [58, 59, 60], "the most recent events, oldest first")
    found = await kit.registry.find_event("p", "note", 41)
    expect_equal(found, seen[41], "the first event of the type past the sequence")
    expect_equal(await kit.registry.find_event("p", "other", 0), None, "an event of a type that is not there")


@case("A.10", "one refused command among a hundred harms no other")
async def one_refusal_in_a_batch(kit: Kit) -> None:
    await kit.register("p50", input=raw("another"))
    commands: list[Command] = [Register(process_id=f"p{n}", registration=registration(f"p{n}")) for n in range(100)]
    results = await kit.registry.execute_all(commands)
    expect_equal(len(results), 100, "the number of answers")
    refused = [(n, type(r)) for n, r in enumerate(results) if isinstance(r, PerdureError)]
    expect_equal(refused, [(50, RegistrationConflict)], "the refusals, in the place of their receipts")
    answered = [r.process_id for r in results if isinstance(r, Receipt)]
    expect_equal(answered, [f"p{n}" for n in range(100) if n != 50], "the receipts, in the order of the commands")
    expect_equal(await kit.registry.count(), 100, "the number of rows")


@case("A.10b", "commands of one batch are decided one after the other, each against what the ones before it did")
async def batch_is_decided_in_order(kit: Kit) -> None:
    claimed = await kit.start("p")
    done = kit.complete_command("p", claimed)
    late = AppendEvent(process_id="p", type="note", payload=raw(1), execution=kit.execution(claimed))
    early = AppendEvent(process_id="p", type="note", payload=raw(0), execution=kit.execution(claimed))
    results = await kit.registry.execute_together((early, done, late))
    expect(isinstance(results[2], LeaseSuperseded), "an append after the end in its own batch is refused")
    expect_equal(await kit.types("p"), ["process.started", "note", "process.completed"], "the log")


@case("A.11", "a caller that is cancelled while it waits leaves its commands committed whole or not at all")
async def cancelled_callers(kit: Kit) -> None:
    def pair(n: int) -> list[Command]:
        return [Register(process_id=id, registration=registration(id)) for id in (f"a{n:02}", f"b{n:02}")]

    async def ask(n: int) -> None:
        await kit.registry.execute_together(pair(n))

    for turns in range(4):
        asking = [kit.spawn(ask(n)) for n in range(turns * 20, turns * 20 + 20)]
        for _ in range(turns):
            await kit.pause()
        for task in asking[::2]:
            task.cancel()
        await asyncio.wait(asking)
        for n, task in enumerate(asking, turns * 20):
            found = await kit.registry.get_many((f"a{n:02}", f"b{n:02}"))
            expect(len(found) in ((0, 2) if task.cancelled() else (2,)), f"pair {n} is whole (found {sorted(found)})")
    await kit.register("later")


CASES = (
    replay_keys,
    replay_keys_everywhere,
    signal_ids,
    reserved_types,
    declared_schemas,
    events_of_unknown_processes,
    sequences_have_no_gaps,
    sequences_over_several_registries,
    paging_while_appending,
    one_refusal_in_a_batch,
    batch_is_decided_in_order,
    cancelled_callers,
)
