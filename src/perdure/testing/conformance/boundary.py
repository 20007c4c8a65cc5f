"""Section A, the boundary: what can't be stored is refused with its path, and on the failure path it is sanitised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from perdure.engines.python.context import ProcessContext
from perdure.errors import InvalidOption, InvalidPayload, InvalidProcessId, PerdureError, UnknownProcess
from perdure.host import Host
from perdure.model.outcomes import ErrorDetail, Failed
from perdure.model.queries import Page
from perdure.model.registration import Identity
from perdure.testing.conformance.case import CaseFailed, case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit, raw, registration
from perdure.transitions.commands import (
    AppendEvent,
    ClaimNext,
    ExternalOwner,
    Register,
    RequestAbandon,
    RequestCancel,
    RowCommand,
    SetExternalRef,
    Signal,
)

ANYTHING = msgspec.Raw(b"{}")
SURROGATE = "bad \ud800 text"


def nested(depth: int) -> object:
    """Lists inside one another, so many."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


# value: the path at which it is refused
UNSTORABLE: tuple[tuple[str, object, str], ...] = (
    ("a NUL", {"a": ["x", "y\0z"]}, "$.a[1]"),
    ("a NUL in a key", {"y\0z": 1}, r'$["y\u0000z"]'),
    ("a lone surrogate", {"a": {"b": "\udfff"}}, "$.a.b"),
    ("NaN", {"a": float("nan")}, "$.a"),
    ("infinity", [1, float("inf")], "$[1]"),
    ("2^63", {"n": 2**63}, "$.n"),
    ("2^64", {"n": 2**64}, "$.n"),
    ("depth 65", nested(65), "$" + "[0]" * 64),
    ("1 MiB + 1", "x" * (1_048_576 - 1), "$"),
)
STORABLE: tuple[object, ...] = (
    nested(64), "x" * (1_048_576 - 2), 2**63 - 1, -(2**63), "é\u2028\U0001f600\x01", {"": None}, 5e-324,
)  # fmt: skip


@asynccontextmanager
async def host_on(kit: Kit, *, work: bool = False) -> AsyncIterator[Host]:
    """A host over the kit's registry; with `work` it runs what it defines."""
    host = Host("", name="conformance", registry=kit.registry, clock=kit.clock, ids=kit.ids, work=work)

    @host.process(recovery="rerunnable")
    async def echo(ctx: ProcessContext, value: Any) -> Any:
        return value

    @host.process(recovery="rerunnable")
    async def fail(ctx: ProcessContext, code: int) -> None:
        raise ValueError("NUL \0 and surrogate \ud800" + code * "x")

    @host.process(recovery="rerunnable")
    async def give(ctx: ProcessContext, code: int) -> Any:
        return {"text": "NUL \0"}

    async with host:
        yield host


@case("A.14", "an input that can't be stored is refused with its path, and nothing is written")
async def unstorable_inputs(kit: Kit) -> None:
    async with host_on(kit) as host:
        echo = host.find_process("echo")
        for what, value, path in UNSTORABLE:
            with refusal(InvalidPayload, what) as caught:
                await host.start(echo, value, id="p")
            expect_equal(caught.error.path, path, f"the path of {what}")
            with refusal(InvalidPayload, f"{what}, given to external work") as caught:
                await host.register_external("outside", value, id="p")
            expect_equal(caught.error.path, path, f"the path of {what}")
        expect_equal(await kit.registry.count(), 0, "the number of rows")
        for n, value in enumerate(STORABLE):
            await host.start(echo, value, id=f"p{n}")
            stored = msgspec.json.decode((await kit.get(f"p{n}")).registration.input)
            expect_equal(stored, value, f"value {n}, read back")


@case("A.14b", "what an exception says is recorded whatever it holds, sanitised and flagged")
async def unstorable_failures(kit: Kit) -> None:
    errors: dict[str, ErrorDetail] = {}
    async with host_on(kit, work=True) as host:
        await host.start(host.find_process("fail"), 0, id="short")
        await host.start(host.find_process("fail"), 1_000_000, id="long")
        await host.start(host.find_process("give"), 0, id="result")
        for id in ("short", "long", "result"):
            async with asyncio.timeout(20):
                outcome = await host.get_handle(id).outcome()
            if not isinstance(outcome, Failed):
                raise CaseFailed(f"{id} should have failed, found {outcome!r}")
            errors[id] = outcome.error
        expect_equal(errors["short"].type, "ValueError", "the type of the error")
        expect_equal(errors["short"].message, "NUL \ufffd and surrogate \ufffd", "its message")
        expect(errors["short"].sanitised, "it is flagged as sanitised")
        expect(len(errors["long"].message) <= 4_000 and errors["long"].sanitised, "a long message is cut and flagged")
        expect_equal(errors["result"].type, "InvalidPayload", "the type of the error of an unstorable result")


def named_badly(kit: Kit) -> dict[str, RowCommand | ClaimNext]:
    """Commands with a lone surrogate in each of the texts that a caller may choose."""
    note: dict[str, Any] = {"process_id": "p", "type": "note", "payload": raw(1)}
    return {
        "an id": Register(process_id=SURROGATE, registration=registration(SURROGATE)),
        "an unknown id": RequestCancel(process_id="\ud800", reason="r"),
        "an originator": Register(process_id="q", registration=registration("q", originator=SURROGATE)),
        "a cause": Register(process_id="q", registration=registration("q", caused_by=SURROGATE)),
        "a label": Register(process_id="q", registration=registration("q", identity=Identity("k", SURROGATE))),
        "a queue": Register(process_id="q", registration=registration("q", queue=SURROGATE)),
        "a replay key": AppendEvent(**note, replay_key=SURROGATE),
        "an operation id": AppendEvent(**note, operation_id=SURROGATE),
        "an event type": AppendEvent(process_id="p", type=SURROGATE, payload=raw(1)),
        "a signal's name": Signal(process_id="p", name=SURROGATE, payload=raw(1)),
        "a signal id": Signal(process_id="p", name="go", payload=raw(1), signal_id=SURROGATE),
        "a reference": SetExternalRef(process_id="p", ref=SURROGATE),
        "a reason": RequestCancel(process_id="p", reason=SURROGATE),
        "an operator": RequestAbandon(process_id="p", reason="r", by=SURROGATE),
        "an external owner": kit.complete_command("outside", ExternalOwner(SURROGATE)),
        "a worker": kit.claim_command(SURROGATE),
        "a claim id": kit.claim_command(claim_id=SURROGATE),
    }  # fmt: skip


@case("A.14c", "a name that can't be stored is refused with a typed error, and harms no other command")
async def unstorable_names(kit: Kit) -> None:
    await kit.register("p", signals={"go": ANYTHING})
    await kit.register("outside", recovery="externally_owned")
    before = await kit.get("p")
    for n, (what, command) in enumerate(named_badly(kit).items()):
        good = Register(process_id=f"good{n:02}", registration=registration(f"good{n:02}", queue="other"))
        found, other = await asyncio.gather(
            kit.registry.execute(command), kit.registry.execute(good), return_exceptions=True
        )
        expect(isinstance(found, PerdureError), f"{what} with a lone surrogate is refused, found {found!r}")
        expect(not isinstance(other, BaseException), f"the command beside {what} is done, found {other!r}")
        (found,) = await kit.registry.execute_all((command,))
        expect(isinstance(found, PerdureError), f"{what} is refused in bulk too, found {found!r}")
    expect_equal(await kit.get("p"), before, "the record")
    expect_equal(await kit.registry.count(), 2 + len(named_badly(kit)), "the number of rows")


@case("A.14d", "an id that can't exist is unknown to every read, and the reads after it are answered")
async def reads_of_impossible_ids(kit: Kit) -> None:
    await kit.register("p")
    for id in ("\ud800", "é", "a\0b", ""):
        async with asyncio.timeout(20):
            with refusal(UnknownProcess, f"the record of {id!r}"):
                await kit.get(id)
            with refusal(UnknownProcess, f"the log of {id!r}"):
                await kit.registry.events_after(id, 0)
            expect_equal(await kit.registry.get_lease(id), None, f"the lease of {id!r}")
            expect_equal(await kit.registry.get_many((id, "p")), {"p": await kit.get("p")}, "the records found")
            expect_equal(list(await kit.registry.ended_among((id, "p"))), [id], "the ids that are live no more")


@case("A.14e", "a host refuses a bad id with the rule, on every surface")
async def bad_ids_at_the_host(kit: Kit) -> None:
    async with host_on(kit) as host:
        for id in ("a#b", "a" * 201, "é", "\ud800", "/x"):
            with refusal(InvalidProcessId, f"a start as {id!r}"):
                await host.start(host.find_process("echo"), 1, id=id)
            with refusal(InvalidProcessId, f"external work as {id!r}"):
                await host.register_external("outside", id=id)
            with refusal(InvalidProcessId, f"a handle on {id!r}"):
                host.get_handle(id)
            with refusal(InvalidProcessId, f"a completion of {id!r}"):
                await host.complete(id, owner="x")
        with refusal(InvalidOption, "a priority out of range"):
            await host.start(host.find_process("echo"), 1, id="p", priority=10)
    expect_equal(await kit.registry.count(), 0, "the number of rows")


@case("A.14f", "a page whose size is out of range is refused, and says the range")
async def page_sizes(kit: Kit) -> None:
    await kit.register("p")
    for limit in (-1, 0, 1_001):
        with refusal(InvalidOption, f"a page of {limit} records") as caught:
            await kit.registry.list(page=Page(limit))
        expect_equal(caught.error.allowed, "1 to 1,000", "the range")
    for limit in (-1, 0, 10_001):
        with refusal(InvalidOption, f"a page of {limit} events") as caught:
            await kit.registry.events_after("p", 0, limit)
        expect_equal(caught.error.allowed, "1 to 10,000", "the range")
        with refusal(InvalidOption, f"the last {limit} events"):
            await kit.registry.recent_events("p", limit)
    expect_equal((await kit.registry.list(page=Page(1_000))).records, (await kit.get("p"),), "the largest page")


CASES = (
    unstorable_inputs,
    unstorable_failures,
    unstorable_names,
    reads_of_impossible_ids,
    bad_ids_at_the_host,
    page_sizes,
)
