"""A handle for callers without async: the verbs of Handle as blocking calls through a portal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from perdure.engines.python.signals import Signal
from perdure.hosting.handle import Handle
from perdure.model.events import Event
from perdure.model.outcomes import ProcessAwaitOutput

if TYPE_CHECKING:
    from perdure.hosting.portal import Portal

P = ParamSpec("P")
T = TypeVar("T")
OutputT = TypeVar("OutputT")
PayloadT = TypeVar("PayloadT")


def _on_handle(
    verb: Callable[Concatenate[Handle[Any], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncHandle[Any], P], T]:
    def blocking(handle: SyncHandle[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return handle.portal.call(verb, handle.asynchronous, *args, **kwargs)

    functools.update_wrapper(blocking, verb)
    return blocking


class SyncHandle(Generic[OutputT]):
    """One process, by its id: a Handle whose verbs block. The async one is `asynchronous`."""

    def __init__(self, portal: Portal, handle: Handle[OutputT]) -> None:
        self.portal, self.asynchronous, self.id = portal, handle, handle.id

    def __repr__(self) -> str:
        return f"<SyncHandle {self.id}>"

    def result(self, timeout: float | None = None) -> OutputT:
        """See Handle.result. After `timeout` seconds raises TimeoutError; the process goes on."""
        return self.portal.wait(self.asynchronous.result, timeout, f"process {self.id!r}")

    def outcome(self, timeout: float | None = None) -> ProcessAwaitOutput:
        """See Handle.outcome, and `result` for `timeout`."""
        return self.portal.wait(self.asynchronous.outcome, timeout, f"process {self.id!r}")

    def events(self, after: int = 0, *, follow: bool = True, timeout: float | None = None) -> Iterator[Event]:
        """See Handle.events. Raises TimeoutError if one event is not followed by another within `timeout` seconds: go
        on with a new iterator `after` the last one's sequence."""
        events = self.asynchronous.events(after, follow=follow)
        waited_for = f"the wait for an event of {self.id!r}"

        async def following() -> Event | None:
            return await anext(events, None)

        while (event := self.portal.wait(following, timeout, waited_for)) is not None:
            yield event

    def signal(self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = None) -> int:
        """See Handle.signal."""
        return self.portal.call(self.asynchronous.signal, signal, payload, id=id)

    status = _on_handle(Handle.status)
    record = _on_handle(Handle.record)
    explain = _on_handle(Handle.explain)
    journal = _on_handle(Handle.journal)
    cancel = _on_handle(Handle.cancel)
    abandon = _on_handle(Handle.abandon)
