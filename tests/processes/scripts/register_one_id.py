"""Registers one id from many coroutines at once, when it is told to: PATH ID COROUTINES."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from perdure.codec import encode_registration, encode_state
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.testing.conformance.kit import raw, registration
from perdure.transitions.commands import Receipt, Register


async def main(path: str, id: str, coroutines: int) -> None:
    registry: Any = await SqliteRegistry.open(path)
    command = Register(process_id=id, registration=registration(id, input=raw({"n": 1})))
    print("ready", flush=True)
    sys.stdin.readline()
    receipts: list[Receipt] = await asyncio.gather(*(registry.execute(command) for _ in range(coroutines)))
    records = [encode_registration(r.record.registration) + encode_state(r.record.state) for r in receipts]
    print(json.dumps({"answers": [r.answer for r in receipts], "records": records}), flush=True)
    await registry.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
