"""An order: payment, shipment, and a refund if the shipment fails. Killed in the middle, it does not charge twice.

Run it: python examples/order.py --kill; python examples/order.py
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from perdure import Host, ProcessContext
from perdure.errors import StepFailed

host = Host("sqlite:///order.db")
LEDGER = Path("order-bank.txt")  # the bank: outside of the database, it keeps every call it got


@dataclass
class Order:
    sku: str
    cents: int
    kilograms: int


def charge(order_id: str, cents: int) -> str:
    """A real bank would be given the receipt as its idempotency key: a kill between its answer and our commit repeats
    the call. What was committed is never called again."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"charge {order_id} {cents}\n")
    say(order_id, f"charged {cents} cents")
    return f"receipt-{order_id}"


def refund(order_id: str, receipt: str, cents: int) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"refund {order_id} {cents}\n")
    say(order_id, f"refunded {cents} cents of {receipt}")


def ship(order_id: str, sku: str, kilograms: int) -> str:
    if kilograms > 30:
        raise ValueError(f"the carrier takes no {sku} of {kilograms} kg")
    say(order_id, f"shipped a {sku}")
    return f"parcel-{order_id}"


def say(order_id: str, what: str) -> None:
    print(f"{order_id}: {what}", flush=True)


@host.process(recovery="rerunnable")
async def fulfil(ctx: ProcessContext, order: Order) -> str:
    receipt = await ctx.step(charge, ctx.process_id, order.cents)  # once this line is passed it is in the log
    if "--kill" in sys.argv:
        say(ctx.process_id, f"paid with {receipt}; killing this program")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return await ctx.step(ship, ctx.process_id, order.sku, order.kilograms)
    except StepFailed as failure:  # recorded as well: a later run takes the same way
        say(ctx.process_id, f"not shipped: {failure}")
        await ctx.step(refund, ctx.process_id, receipt, order.cents)
        return "refunded"


async def main() -> None:
    async with host, asyncio.timeout(60):
        for id, order in {"order-1": Order("mug", 1200, 1), "order-2": Order("piano", 90000, 300)}.items():
            run = await host.start(fulfil, order, id=id)  # after the kill: the same process, which goes on
            say(id, f"ended with {await run.result()!r}")


if __name__ == "__main__":
    asyncio.run(main())
    print("the bank was called for:", *LEDGER.read_text().splitlines(), sep="\n  ")
