import asyncio
from dataclasses import dataclass

from perdure import Host, ProcessContext

host = Host("sqlite:///quickstart.db")


@dataclass
class Order:
    sku: str
    cents: int


@host.process(recovery="rerunnable")  # if the worker dies, another one may run it again
async def fulfil(ctx: ProcessContext, order: Order) -> str:
    print(f"attempt {ctx.attempt}: packing {order.sku}")
    await ctx.emit("packed", {"sku": order.sku}, key="packed")  # in the log once, however often this runs
    await asyncio.sleep(5)  # kill -9 me now
    return f"{order.sku} shipped"


async def main() -> None:
    async with host, asyncio.timeout(60):
        run = await host.start(fulfil, Order("mug", 1200), id="order-1")  # the same id is the same process
        print(await run.result())


if __name__ == "__main__":
    asyncio.run(main())
