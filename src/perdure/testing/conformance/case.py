"""What a conformance case is: one line of the contract, as a named coroutine function over a kit.

A module of cases decorates each with `@case(id, title)` and lists them in its `CASES`. A case asserts through `expect`,
`expect_equal` and `refusal`, which hold under `python -O` too, and never asks which store it runs on, only what the
store can do. The runner ends every case by refolding every log (A.7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.testing.conformance.kit import Kit

ErrorT = TypeVar("ErrorT", bound=PerdureError)
ValueT = TypeVar("ValueT")

Capability = Literal["reopenable", "multi_process", "live_elsewhere"]
"""reopenable: what was written is there when the store is opened again · multi_process: several registries, in one
program or in several, may be open on one store at a time · live_elsewhere: live output reaches followers through all of
them."""

CaseFunction = Callable[["Kit"], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One fact that must hold on every store that has the capabilities it needs."""

    id: str
    title: str
    run: CaseFunction
    needs: frozenset[Capability] = frozenset()

    def __str__(self) -> str:
        return f"{self.id} {self.title}"


def case(id: str, title: str, *, needs: Iterable[Capability] = ()) -> Callable[[CaseFunction], Case]:
    """Make a case of `async def (kit) -> None`; `id` is the line of the contract, with a letter for a part of it."""

    def make(function: CaseFunction) -> Case:
        return Case(id, title, function, frozenset(needs))

    return make


class CaseFailed(AssertionError):
    """The store did not do what the contract says."""


def expect(holds: bool, what: str) -> None:
    """Fail the case unless it holds; `what` is the fact that was expected."""
    if not holds:
        raise CaseFailed(f"expected: {what}")


def expect_equal(found: object, expected: object, what: str) -> None:
    """Fail the case unless both are equal."""
    if found != expected:
        raise CaseFailed(f"{what}:\n  expected {expected!r}\n  found    {found!r}")


def present(value: ValueT | None, what: str) -> ValueT:
    """The value; fails the case if there is none."""
    if value is None:
        raise CaseFailed(f"expected: {what}, found none")
    return value


@dataclass
class Caught(Generic[ErrorT]):
    """What `refusal` has caught; `error` is there after its block."""

    _error: ErrorT | None = None

    @property
    def error(self) -> ErrorT:
        return present(self._error, "a refusal")


@contextmanager
def refusal(kind: type[ErrorT], what: str) -> Iterator[Caught[ErrorT]]:
    """Fail the case unless the block raises exactly this typed error."""
    caught: Caught[ErrorT] = Caught()
    try:
        yield caught
    except PerdureError as error:
        if type(error) is not kind:
            raise CaseFailed(f"{what}: expected {kind.__name__}, found {type(error).__name__}: {error}") from error
        caught._error = error
        return
    raise CaseFailed(f"{what}: expected {kind.__name__}, and nothing was refused")
