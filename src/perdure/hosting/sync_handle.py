"""A handle for callers without async: the verbs of Handle as blocking calls through a portal."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from perdure.engines.python.signals import Signal
from perdure.hosting.handle import Handle
from perdure.model.events import Event
from perdure.model.live import Chunk
from perdure.model.outcomes import ProcessAwaitOutput
from perdure.model.progress import Progress

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
        return self._iterated(self.asynchronous.events(after, follow=follow), timeout, "an event")

    def follow(self, *channels: str, most_waiting: int = 1_000, timeout: float | None = None) -> Iterator[Chunk]:
        """See Handle.follow, and `events` for `timeout`. It begins with the first chunk that is asked for."""
        return self._iterated(self.asynchronous.follow(*channels, most_waiting=most_waiting), timeout, "a chunk")

    def follow_progress(self, *, timeout: float | None = None) -> Iterator[Progress]:
        """See Handle.follow_progress, and `events` for `timeout`."""
        return self._iterated(self.asynchronous.follow_progress(), timeout, "progress")

    def _iterated(self, items: AsyncIterator[T], timeout: float | None, what: str) -> Iterator[T]:
        async def following() -> T | None:
            return await anext(items, None)

        while (item := self.portal.wait(following, timeout, f"the wait for {what} of {self.id!r}")) is not None:
            yield item

    @overload
    def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = ..., connection: None = ...
    ) -> int: ...
    @overload
    def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = ..., connection: object
    ) -> None: ...
    def signal(
        self, signal: Signal[PayloadT], payload: PayloadT, *, id: str | None = None, connection: object | None = None
    ) -> int | None:
        """See Handle.signal. A connection is used on this thread."""
        if connection is None:
            return self.portal.call(self.asynchronous.signal, signal, payload, id=id)
        return self.portal.join(
            lambda: self.asynchronous.signal(signal, payload, id=id, connection=connection), connection
        )

    status = _on_handle(Handle.status)
    record = _on_handle(Handle.record)
    progress = _on_handle(Handle.progress)
    explain = _on_handle(Handle.explain)
    journal = _on_handle(Handle.journal)
    cancel = _on_handle(Handle.cancel)
    abandon = _on_handle(Handle.abandon)
