"""An agent: a model that uses tools in a loop, tells what it does as it goes, and asks a human before it spends money.

The model here is a few lines that decide by what the tools answered. A real one is one class with the same method; the
loop, the tools and the approval stay as they are. Every answer of the model is a step: a killed agent goes on without
asking (and paying) for it again. What the model says on the way is live output, kept nowhere; its answers are in the
log. Run it: python examples/agent.py, and again in another folder with --live
"""

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from perdure import Handle, Host, ProcessContext, Signal

host = Host("sqlite:///agent.db")
MOST_TURNS = 10


@dataclass
class ToolCall:
    tool: str
    subject: str


@dataclass
class Message:
    author: str  # "user", or the name of a tool
    text: str


@dataclass
class Reply:
    text: str
    call: ToolCall | None = None  # none: the text is the answer


@dataclass
class Decision:
    granted: bool
    by: str


approval = Signal("approval", Decision)


Say = Callable[[str], None]


class Model(Protocol):
    async def reply(self, conversation: list[Message], say: Say) -> Reply:
        """The next reply; `say` is given its tokens as they come."""
        ...


class OfflineModel:
    """Keeps a shop stocked: looks, prices, orders. What it does next depends on what the tools have said."""

    async def reply(self, conversation: list[Message], say: Say) -> Reply:
        reply = self.decide(conversation)
        for token in re.findall(r" ?[^ ]+", reply.text):
            say(token)
            await asyncio.sleep(0.01)
        return reply

    def decide(self, conversation: list[Message]) -> Reply:
        subject, last = conversation[0].text, conversation[-1]
        match last.author, last.text:
            case "user", _:
                return Reply("how much is left?", ToolCall("stock", subject))
            case "stock", left if int(left) >= 10:
                return Reply(f"{left} {subject} left, that is enough")
            case "stock", left:
                return Reply(f"only {left} left; what would a box cost?", ToolCall("price", subject))
            case "price", euros:
                return Reply(f"a box is {euros} euros; may I?", ToolCall("order", subject))
            case "order", said if said.startswith("refused"):
                return Reply(f"{subject} is not ordered: {said}")
        return Reply(f"done: {last.text}")


model: Model = OfflineModel()  # the one line to change for a real provider

STOCK, PRICES = {"coffee": 40, "tea": 3, "saffron": 1}, {"tea": 25, "saffron": 900}
TOOLS: dict[str, Callable[[str], str]] = {
    "stock": lambda subject: str(STOCK.get(subject, 0)),
    "price": lambda subject: str(PRICES.get(subject, 50)),
    "order": lambda subject: f"a box of {subject} is on its way",
}
NEEDS_APPROVAL = {"order"}


def use_tool(call: ToolCall) -> str:
    return TOOLS[call.tool](call.subject)


@host.process(recovery="rerunnable")
async def agent(ctx: ProcessContext, task: str) -> str:
    async def ask_model(conversation: list[Message]) -> Reply:
        return await model.reply(conversation, lambda token: ctx.publish("tokens", token))

    conversation = [Message("user", task)]
    for turn in range(1, MOST_TURNS + 1):
        reply = await ctx.step(ask_model, conversation, key=f"model-{turn}")
        if reply.call is None:
            return reply.text
        await ctx.emit("says", {"text": reply.text, "tool": reply.call.tool}, key=f"says-{turn}")
        if reply.call.tool in NEEDS_APPROVAL:
            await ctx.emit("needs_approval", {"tool": reply.call.tool, "subject": task}, key=f"ask-{turn}")
            decision = await ctx.wait(approval, key=f"approval-{turn}")  # for days, if need be: it costs one row
            if not decision.granted:
                conversation.append(Message(reply.call.tool, f"refused by {decision.by}"))
                continue
        result = await ctx.step(use_tool, reply.call, key=f"tool-{turn}")
        await ctx.emit("got", {"tool": reply.call.tool, "result": result}, key=f"got-{turn}")
        conversation.append(Message(reply.call.tool, result))
    raise RuntimeError(f"no answer after {MOST_TURNS} turns")


async def ask_human(subject: str) -> Decision:
    """At a terminal you decide; elsewhere a rule does: up to 100 euros."""
    if sys.stdin.isatty():
        answer = await asyncio.to_thread(input, f"order a box of {subject}? [y/n] ")
        return Decision(answer.strip().lower().startswith("y"), "you")
    return Decision(PRICES[subject] <= 100, "the rule")


async def show_log(run: Handle[str], task: str) -> None:
    """Tell what the log says and get the approvals that it asks for, until the agent has ended."""
    async for event in run.events():
        match event.type:
            case "says":
                tell("{0}: {text} [{tool}]".format(task, **msgspec.json.decode(event.payload)))
            case "got":
                tell("{0}: {tool} -> {result}".format(task, **msgspec.json.decode(event.payload)))
            case "needs_approval" if not (await run.record()).is_terminal:
                decision = await ask_human(task)
                tell(f"{task}: {decision.by}: {'yes' if decision.granted else 'no'}")
                await run.signal(approval, decision, id=f"answer-{event.sequence}")


async def type_along(run: Handle[str], task: str) -> None:
    """Type what the model says while it says it, a line for each answer. A new fence: the answer begins anew."""
    at: tuple[str | None, int] | None = None
    async for chunk in run.follow("tokens"):
        if (chunk.step, chunk.fence) != at:
            print("" if at is None else "\n", f"{task} ~ ", sep="", end="")
            at = chunk.step, chunk.fence
        print(chunk.value, end="", flush=True)
    if at is not None:
        print()


def tell(line: str) -> None:
    if "--live" not in sys.argv:
        print(line, flush=True)


async def main() -> None:
    async with host:
        for task in ("coffee", "tea", "saffron"):
            run = await host.start(agent, task, id=f"stock-{task}")
            async with asyncio.TaskGroup() as group:
                group.create_task(show_log(run, task))
                if "--live" in sys.argv:
                    group.create_task(type_along(run, task))
            print(f"{task}: {await run.result()}")


if __name__ == "__main__":
    asyncio.run(main())
