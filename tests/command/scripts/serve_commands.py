"""Serves commands until its standard input ends: PATH. Told `fork`, it makes a child that keeps all its descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from perdure.host import Host


async def main(path: str) -> None:
    loop = asyncio.get_running_loop()
    async with Host(f"sqlite:///{path}"):
        print("serving", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "fork":
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
                print("forked", child, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
