"""What `handle.explain()` says of a row whose definition or version the enrolled workers know, or don't."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from perdure import Host, ProcessContext
from perdure.contract.registry import Registry
from perdure.model.queries import Explanation
from perdure.model.registration import Definition, Registration
from perdure.stores.memory import MemoryRegistry
from perdure.transitions.commands import Register


def host_with(store: MemoryRegistry, name: str, *versions: int, work: bool = True) -> Host:
    host = Host("", name=name, registry=cast("Registry", store), work=work, commands=False)
    for version in versions:

        @host.process(recovery="rerunnable", name="greet", version=version)
        async def greet(ctx: ProcessContext) -> str:
            return "hello"

    return host


async def explained(host: Host, definition: Definition) -> Explanation:
    """What is said of a row of that definition, which is registered with a delay so that nobody runs it now."""
    registration = Registration(id="p", definition=definition, recovery="rerunnable", delay_ms=3_600_000)
    await host.registry.execute(Register(process_id="p", registration=registration))
    return await host.get_handle("p").explain()


@pytest.mark.parametrize(
    ("definition", "instead", "advice"),
    [
        (Definition("python", "leave"), "of python they know greet", "start a worker that has python/leave@1"),
        (
            Definition("python", "greet", 9), "of greet they know version 3, 4: version 9 is newer",
            "start a worker that has version 9 of greet",
        ),
        (
            Definition("python", "greet", 1), "of greet they know version 3, 4: version 1 is older",
            "start a worker that still has version 1 of greet",
        ),
        (
            Definition("restate", "greet", 3), "they run python, none the engine restate",
            "start a worker with the engine restate",
        ),
    ],
    ids=["unknown name", "newer", "older", "unknown engine"],
)  # fmt: skip
@pytest.mark.parametrize("asker_works", [True, False])
def test_what_no_enrolled_worker_can_run_is_explained_to_hosts_that_work_and_that_only_look(
    definition: Definition, instead: str, advice: str, asker_works: bool
) -> None:
    async def story() -> None:
        store = MemoryRegistry()
        looks = host_with(store, "looks", work=False)
        async with host_with(store, "elsewhere", 4), host_with(store, "here", 3) as here, looks:
            found = await explained(here if asker_works else looks, definition)
        assert (found.verdict, found.needs_attention) == ("unknown_definition", True)
        assert found.because == (f"it waits for a worker that knows {definition}, and no enrolled worker does", instead)
        assert found.you_can == (advice, "perdure cancel p")

    asyncio.run(story())


def test_what_another_worker_knows_is_not_unknown_though_the_asking_one_does_not_know_it() -> None:
    async def story() -> None:
        store = MemoryRegistry()
        async with host_with(store, "elsewhere", 4), host_with(store, "here", 3) as here:
            assert (await explained(here, Definition("python", "greet", 4))).verdict == "delayed"

    asyncio.run(story())


def test_a_definition_that_is_added_while_the_host_is_open_is_known_from_the_next_drive_on() -> None:
    async def story() -> None:
        store = MemoryRegistry()
        async with host_with(store, "here", 3) as here:
            assert (await explained(here, Definition("python", "later"))).verdict == "unknown_definition"

            @here.process(recovery="rerunnable")
            async def later(ctx: ProcessContext) -> None: ...

            await here.claim_and_run_pending("one more definition")
            assert (await here.get_handle("p").explain()).verdict == "delayed"

    asyncio.run(story())
