"""A way to the server that can be cut, slowed and silenced: a TCP proxy on the loopback address."""

from __future__ import annotations

import asyncio
from typing import Literal

Direction = Literal["to_server", "to_client"]
DIRECTIONS: tuple[Direction, ...] = ("to_server", "to_client")


class Proxy:
    """Passes bytes between whoever connects to `port` and the server, in order and whole, as long as it is let."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._flowing = {direction: asyncio.Event() for direction in DIRECTIONS}
        self._delay_s = 0.0
        self._refusing = False
        self.port = 0
        for flowing in self._flowing.values():
            flowing.set()

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._linked, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._refusing = True
        while self._links:
            self.heal(cut=True)  # what is held back lets go
            await asyncio.wait(set(self._links))
        await self._listener.wait_closed()

    # --- faults -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections at once; what they still held is lost."""
        for writers in self._links.values():
            for writer in writers:
                writer.transport.abort()

    def refuse(self) -> None:
        """End all connections, and each new one."""
        self._refusing = True
        self.cut()

    def silence(self, *directions: Direction) -> None:
        """Hold back what is sent in these directions, on connections that stay up and on new ones."""
        for direction in directions:
            self._flowing[direction].clear()

    def delay(self, milliseconds: int) -> None:
        """Let each piece wait so long in each direction."""
        self._delay_s = milliseconds / 1000

    def heal(self, *, cut: bool) -> None:
        """End silence and delay. What was held back is delivered late or, with `cut`, lost with its connections."""
        if cut:
            self.cut()
        self._delay_s = 0.0
        for flowing in self._flowing.values():
            flowing.set()

    def accept(self) -> None:
        """Take connections again."""
        self._refusing = False

    # --- one connection ---------------------------------------------------------------------------------------

    async def _linked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._links[task] = [writer]
        try:
            if self._refusing:
                return
            upstream, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            writers.append(to_server)
            pumps = {
                asyncio.ensure_future(self._pump(reader, to_server, "to_server")),
                asyncio.ensure_future(self._pump(upstream, writer, "to_client")),
            }
            try:
                await asyncio.wait(pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # the server is away: so is its proxy
            pass
        finally:
            del self._links[task]
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Until one side ends; what it had sent is delivered, and then the other side's connection is ended too."""
        flowing = self._flowing[direction]
        try:
            while piece := await reader.read(1 << 16):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await flowing.wait()
                writer.write(piece)
                await writer.drain()
        except OSError:
            writer.transport.abort()
        else:
            writer.close()
