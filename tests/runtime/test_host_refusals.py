"""What a host refuses: each a typed error that says what is allowed, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from perdure import Host, ProcessContext, Retry
from perdure.errors import (
    InvalidDefinition,
    InvalidOption,
    InvalidPayload,
    InvalidProcessId,
    NotPermitted,
    UnknownDefinition,
    UnknownProcess,
    WrongHostUse,
)


@dataclass
class Question:
    topic: str


def refused(kind: type[Exception], call: Callable[[Host, Any], Awaitable[object]]) -> Exception:
    """Open a host with one definition, make the call, and see that it is refused and nothing was written."""

    async def main() -> Exception:
        host = Host("memory://")

        @host.process(recovery="rerunnable")
        async def ask(ctx: ProcessContext, question: Question) -> str:
            return question.topic

        async with host:
            with pytest.raises(kind) as raised:
                await call(host, ask)
            assert await host.registry.count() == 0
            return raised.value

    return asyncio.run(main())


GOOD = Question("why")

OPTIONS: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "an empty id": (InvalidProcessId, {"id": ""}),
    "an id with a space": (InvalidProcessId, {"id": "a b"}),
    "an id that is no text": (InvalidProcessId, {"id": 7}),
    "a priority beyond the last": (InvalidOption, {"priority": 10}),
    "a priority that is no whole number": (InvalidOption, {"priority": 1.5}),
    "a priority that is text": (InvalidOption, {"priority": "high"}),
    "a negative delay": (InvalidOption, {"delay": -1}),
    "a delay that is text": (InvalidOption, {"delay": "soon"}),
    "an endless delay": (InvalidOption, {"delay": float("inf")}),
    "a delay of more than a hundred years": (InvalidOption, {"delay": timedelta(days=40_000)}),
    "a deadline of nothing": (InvalidOption, {"deadline": 0}),
    "a deadline that is not a number": (InvalidOption, {"deadline": float("nan")}),
    "an empty queue": (InvalidOption, {"queue": ""}),
    "a queue with a space": (InvalidOption, {"queue": "my queue"}),
    "a queue that is no text": (InvalidOption, {"queue": 5}),
    "a label that is no text": (InvalidOption, {"label": 5}),
    "a label with a lone surrogate": (InvalidOption, {"label": "\ud800"}),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_start_refuses(what: str) -> None:
    kind, options = OPTIONS[what]
    refused(kind, lambda host, ask: host.start(ask, GOOD, **options))


def test_a_value_of_another_type_is_refused_with_its_path() -> None:
    error = refused(InvalidPayload, lambda host, ask: host.start(ask, {"topic": 7}))
    assert isinstance(error, InvalidPayload)
    assert error.path == "$.topic"


def test_a_missing_value_is_refused() -> None:
    refused(InvalidPayload, lambda host, ask: host.start(ask))


def test_one_bad_value_among_many_starts_none_of_them() -> None:
    refused(InvalidPayload, lambda host, ask: host.start_many(ask, [GOOD, Question("what"), {"topic": 7}]))
    refused(InvalidProcessId, lambda host, ask: host.start_many(ask, [GOOD, GOOD], ids=["fine", "not fine"]))
    refused(InvalidOption, lambda host, ask: host.start_many(ask, [GOOD, GOOD], ids=["one"]))


def test_a_value_for_a_process_that_takes_none_is_refused() -> None:
    async def call(host: Host, ask: Any) -> object:
        @host.process(recovery="rerunnable")
        async def nothing(ctx: ProcessContext) -> None: ...

        return await host.start(nothing, 7)  # type: ignore[misc]  # the mistake is the point

    refused(InvalidOption, call)


def test_a_definition_of_another_host_is_refused() -> None:
    async def call(host: Host, ask: Any) -> object:
        other = Host("memory://")

        @other.process(recovery="rerunnable")
        async def elsewhere(ctx: ProcessContext) -> None: ...

        return await host.start(elsewhere)

    refused(UnknownDefinition, call)


def test_an_unknown_process_is_named() -> None:
    error = refused(UnknownProcess, lambda host, ask: host.get_handle("nobody").status())
    assert "nobody" in str(error)


def test_only_its_owner_may_complete_an_external_process_and_nobody_another() -> None:
    async def main() -> None:
        host = Host("memory://", work=False)

        @host.process(recovery="rerunnable")
        async def ours(ctx: ProcessContext) -> None: ...

        async with host:
            await host.start(ours, id="ours")
            with pytest.raises(NotPermitted):
                await host.complete("ours", 1, owner="them")
            assert await host.get_handle("ours").status() == "pending"

    asyncio.run(main())


# --- at import -------------------------------------------------------------------------------------------------


def test_a_process_without_a_declared_recovery_is_a_type_error_that_explains_both_choices() -> None:
    host = Host("memory://")
    with pytest.raises(TypeError) as raised:

        @host.process()  # type: ignore[call-overload, untyped-decorator]  # the mistake is the point
        async def forgot(ctx: ProcessContext) -> None: ...

    assert "'forgot'" in str(raised.value)
    assert "recovery='rerunnable'" in str(raised.value)
    assert "recovery='owner_bound'" in str(raised.value)


DEFINITIONS: dict[str, dict[str, Any]] = {
    "another recovery": {"recovery": "sometimes"},
    "an external recovery": {"recovery": "externally_owned"},
    "a retry of owner_bound work": {"recovery": "owner_bound", "retry": Retry(3)},
    "no attempt at all": {"recovery": "rerunnable", "retry": Retry(0)},
    "more jitter than there is delay": {"recovery": "rerunnable", "retry": Retry(jitter=2.0)},
    "a factor that shrinks": {"recovery": "rerunnable", "retry": Retry(factor=0.5)},
    "fewer deaths than none": {"recovery": "rerunnable", "max_deaths": -1},
    "version 0": {"recovery": "rerunnable", "version": 0},
    "a queue with a space": {"recovery": "rerunnable", "queue": "my queue"},
    "a name with a space": {"recovery": "rerunnable", "name": "my process"},
    "a timeout of nothing": {"recovery": "rerunnable", "timeout": timedelta(0)},
}


@pytest.mark.parametrize("what", DEFINITIONS)
def test_a_definition_refuses_at_import(what: str) -> None:
    host = Host("memory://")
    with pytest.raises(InvalidOption):

        @host.process(**DEFINITIONS[what])
        async def work(ctx: ProcessContext) -> None: ...

    assert not host._processes


def test_a_function_of_another_shape_is_refused_at_import() -> None:
    host = Host("memory://")
    with pytest.raises(InvalidDefinition):
        host.process(recovery="rerunnable")(lambda: None)  # type: ignore[misc, arg-type]  # the mistake
    with pytest.raises(InvalidDefinition):
        host.process(recovery="rerunnable")(lambda ctx, a, b: None)  # type: ignore[misc, arg-type]


def test_the_same_definition_twice_is_refused_at_import() -> None:
    host = Host("memory://")

    @host.process(recovery="rerunnable")
    async def work(ctx: ProcessContext) -> None: ...

    with pytest.raises(InvalidDefinition):
        host.process(recovery="rerunnable", name="work")(work.function)


# --- a host that isn't open ------------------------------------------------------------------------------------


def test_a_host_that_is_not_open_says_how_to_open_it() -> None:
    async def main() -> None:
        host = Host("memory://")

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext) -> None: ...

        for call in (lambda: host.start(work), lambda: host.list(), lambda: host.claim_and_run_pending("now")):
            with pytest.raises(WrongHostUse, match="async with"):
                await call()
        async with host:
            with pytest.raises(WrongHostUse, match="open already"):
                await host.open()
        assert await host.close() == ()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["", "sqlite://", "mysql://x", "work.db"])
def test_a_url_of_another_form_is_refused_with_the_forms_there_are(url: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidOption, match="sqlite:///"):
            async with Host(url):
                pass

    asyncio.run(main())
