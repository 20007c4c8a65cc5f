"""Hints to and from other programs: a commit is told by NOTIFY, on a connection of its own, after it.

A hint carries no facts and may be lost: whoever hears it reads. LISTEN is believed only once a notification has come
that was sent on another connection, and a program that lost its connection listens again and is hinted once, as it may
have missed some. Behind a pooler there is no LISTEN: it would stay behind on a connection that is then given to
others, and bring nothing here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress

from perdure.ids import Ids
from perdure.stores.postgres.connections import Connection, Connections
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.url import Target

SPACING_S, LONGEST_SPACING_S = 0.002, 0.02
"""Hints that would come closer together than this are sent as one; the more there are, the further apart they go."""
PROBE_BOUND_S = 2.0
PROBE_EVERY_S = 20.0
BACKOFF_S = 1.0


def channel_of(schema: str) -> str:
    """The channel on which the programs that use this schema are hinted: letters, digits and _."""
    return f"perdure_{hashlib.sha256(schema.encode()).hexdigest()[:16]}"


class Hints:
    """Lives on the store's own loop; `heard` is called there."""

    def __init__(self, loop: OwnLoop, target: Target, ids: Ids, heard: Callable[[], None]) -> None:
        self._loop, self._heard = loop, heard
        self._channel, self._tag = channel_of(target.schema), hashlib.sha256(ids.token().encode()).hexdigest()[:12]
        self._connections = Connections(target, 1)
        self._listener: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._due = False
        self._probes = 0
        self._probed = asyncio.Event()
        self.arrive = False
        """Whether what others send has been seen to come here, and nothing has spoken against it since."""

    # --- to others --------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Tell the others that something was committed; soon, and once for what is committed meanwhile."""
        self._due = True
        if self._sender is None or self._sender.done():
            self._sender = self._loop.spawn(self._send())

    async def _send(self) -> None:
        spacing_s = SPACING_S
        while self._due:
            self._due = False
            with suppress(Exception):  # whatever it was: a hint may be lost
                async with self._connections.one() as connection:
                    await self._notify(connection, self._tag)
            await self._loop.pause(spacing_s)
            spacing_s = min(spacing_s * 2, LONGEST_SPACING_S)

    async def _notify(self, connection: Connection, tag: str) -> None:
        """Nothing rests on it, so nothing waits for the disk."""
        await connection.execute(
            f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {self._channel}, '{tag}'; COMMIT"  # hex digits all
        )

    # --- from others ------------------------------------------------------------------------------------------

    def listen(self) -> None:
        if self._listener is None:
            self._listener = self._loop.spawn(self._listen())

    async def _listen(self) -> None:
        while True:
            with suppress(Exception):  # whatever it was: without a listener there is the safety interval
                await self._listen_once()
            if self._connections.are_pooled:
                break
            await self._loop.pause(BACKOFF_S)

    async def _listen_once(self) -> None:
        """Until the connection is lost or no longer brings what is sent to it."""
        connection = await self._connections.connect()
        lost = asyncio.Event()
        try:
            if self._connections.are_pooled:
                return
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, self._received)
            while not lost.is_set() and await self._is_heard():
                if not self.arrive:
                    self.arrive = True
                    self._heard()  # what was missed until now
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_EVERY_S):
                        await lost.wait()
        finally:
            self.arrive = False
            connection.terminate()

    async def _is_heard(self) -> bool:
        """Sent by another connection: through a pooler, one's own may come back by the way on which it was sent."""
        self._probes += 1
        self._probed.clear()
        async with self._connections.one() as connection:
            await self._notify(connection, f"{self._tag}.{self._probes}")
        try:
            async with asyncio.timeout(PROBE_BOUND_S):
                await self._probed.wait()
        except TimeoutError:
            return False
        return True

    def _received(self, _: object, __: int, ___: str, tag: object) -> None:
        sender, _, probe = str(tag).partition(".")
        if sender == self._tag:
            if probe == str(self._probes):
                self._probed.set()
        elif not probe:
            self._heard()

    async def close(self) -> None:
        tasks = [task for task in (self._listener, self._sender) if task is not None]
        if self._listener is not None:
            self._listener.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._connections.close()
