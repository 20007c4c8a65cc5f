"""What the check finds in the code of a process, and what it leaves alone: `# !rule` marks where something is found."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from perdure.cli.checking.analysis import Entry, NotFound, findings_in
from perdure.cli.checking.operations import KEYED, OPERATIONS
from perdure.cli.checking.scopes import first_line
from perdure.engines.python.context import ProcessContext

HEAD = """
import asyncio
import contextlib
import datetime as dt
import functools
import random
import time
import uuid
from asyncio import CancelledError, create_task
from contextlib import suppress
from datetime import datetime
from random import choice
from uuid import uuid4

async def one(ctx, page):
    return await ctx.step(draft, page, key=page)

def later_of(ctx, page):
    return ctx.step(draft, page, key=page)

async def facts(ctx):
    return ctx.attempt
"""

FOUND = {
    "steps, starts, waits, sleeps and events in a loop": """
async def process(ctx, pages):
    for page in pages:
        await ctx.step(draft, page)  # !key
        await ctx.start(child, page)  # !key
    while await ctx.wait(go):  # !key
        await ctx.sleep(5)  # !key
        await ctx.emit("told")  # !key
""",
    "operations in comprehensions of every kind": """
async def process(ctx, pages):
    await ctx.gather(*(ctx.step(draft, p) for p in pages))  # !key
    await ctx.gather(*[ctx.step(draft, p) for p in pages])  # !key
    by_page = {p: ctx.step(draft, p) for p in pages}  # !key
    await ctx.gather(*by_page.values())
""",
    "a step in a function of the module that is called in a loop": """
async def process(ctx, pages):
    for page in pages:
        await unkeyed(page, context=ctx)

async def unkeyed(page, context):
    await context.step(draft, page)  # !key
""",
    "a step in a function inside that is called in a loop": """
async def process(ctx, pages):
    async def write(page):
        return await ctx.step(draft, page)  # !key

    for page in pages:
        await write(page)
""",
    "a loop inside a branch": """
async def process(ctx, pages):
    async def branch(ctx):
        for page in pages:
            await ctx.step(draft, page)  # !key

    await ctx.branches(branch, branch)
""",
    "a loop inside a branch that is made of a function with arguments, or put into a list": """
async def process(ctx, chapters):
    async def whole(pages, ctx):
        return [await ctx.step(draft, page) for page in pages]  # !key

    await ctx.branches(*(functools.partial(whole, pages) for pages in chapters))
    listed = []
    for pages in chapters:
        async def chapter(ctx):
            return [await ctx.step(draft, page) for page in pages]  # !key

        listed.append(chapter)
    await ctx.branches(*listed)
""",
    "the context under another name": """
async def process(ctx, pages):
    context = ctx
    for page in pages:
        await context.step(draft, page)  # !key
""",
    "tasks around operations": """
async def process(ctx):
    asyncio.create_task(one(ctx, "a"))  # !task
    create_task(one(ctx, "b"))  # !task
    await asyncio.gather(ctx.step(draft, "c", key="c"), other())  # !task
    await asyncio.wait_for(ctx.wait(go), 5)  # !task
    async with asyncio.TaskGroup() as group:
        group.create_task(one(ctx, "d"))  # !task
""",
    "tasks around operations that were collected before": """
async def process(ctx, pages):
    kept = ctx.step(draft, "a", key="a")
    listed = []
    for page in pages:
        listed.append(later_of(ctx, page))
    await asyncio.gather(kept)  # !task
    await asyncio.gather(*listed)  # !task
    await asyncio.gather(*[one(ctx, page) for page in pages])  # !task
""",
    "a function that calls itself in tasks": """
async def process(ctx, tree):
    inside = [process(ctx, branch) for branch in tree]
    await asyncio.gather(*inside)  # !task
    await ctx.step(draft, tree, key=str(tree))
""",
    "times, chance and names that nobody records": """
async def process(ctx):
    time.time()  # !unrecorded
    time.monotonic()  # !unrecorded
    datetime.now()  # !unrecorded
    dt.datetime.now(dt.UTC)  # !unrecorded
    dt.date.today()  # !unrecorded
    random.random()  # !unrecorded
    choice([1, 2])  # !unrecorded
    random.Random()  # !unrecorded
    uuid.uuid4()  # !unrecorded
    uuid4()  # !unrecorded
    await ctx.step(save, uuid4())  # !unrecorded
""",
    "a name that is imported where it is used": """
async def process(ctx):
    from time import time as now
    return now()  # !unrecorded
""",
    "a time in a function that is given the context, or is called inside": """
async def process(ctx):
    def stamp():
        return time.time()  # !unrecorded

    stamp()
    await stamped(ctx)

async def stamped(ctx):
    return await ctx.step(save, time.time())  # !unrecorded
""",
    "handlers that swallow": """
async def process(ctx):
    try:
        await ctx.step(draft)
    except BaseException:  # !swallowed
        log()
    try:
        await one(ctx, "a")
    except (ValueError, asyncio.CancelledError):  # !swallowed
        return None
    try:
        await ctx.sleep(5)
    except:  # !swallowed
        pass
""",
    "handlers that raise again on some ways only, or something else": """
async def process(ctx):
    try:
        await ctx.step(draft)
    except CancelledError as told:  # !swallowed
        if ctx.attempt > 1:
            raise
    try:
        await ctx.step(draft)
    except CancelledError as told:  # !swallowed
        raise RuntimeError("stopped") from told
    while True:
        try:
            await ctx.wait(go, key="k")
        except CancelledError:  # !swallowed
            break
""",
    "suppressed cancellations": """
async def process(ctx):
    with suppress(CancelledError):  # !swallowed
        await ctx.sleep(5)
    with contextlib.suppress(BaseException):  # !swallowed
        await one(ctx, "a")
""",
    "operations that nobody awaits": """
async def process(ctx):
    ctx.step(draft, "a")  # !unawaited
    kept = ctx.sleep(5)  # !unawaited
    ctx.emit("told")  # !unawaited
    one(ctx, "b")  # !unawaited
    [ctx.step(draft, key=p) for p in "ab"]  # !unawaited
    child = await ctx.start(other)
    child.result()  # !unawaited
    return ctx.wait(go)  # !unawaited
""",
    "a plain process": """
def process(ctx):
    for page in "ab":
        ctx.step(draft, page)  # !key
    later = ctx.later
    later.step(draft, "c")  # !unawaited
    ctx.gather(*[ctx.later.step(draft, p) for p in "de"])  # !key
    try:
        ctx.sleep(time.time())  # !unrecorded
    except BaseException:  # !swallowed
        return
""",
}

LEFT_ALONE = {
    "keys, also among options": """
async def process(ctx, pages, options):
    for page in pages:
        await ctx.step(draft, page, key=page)
        await ctx.start(child, page, **options)
    await ctx.gather(*(ctx.step(draft, p, key=p) for p in await ctx.step(list_pages)))
""",
    "what a loop only goes through once": """
async def process(ctx):
    for page in await ctx.step(list_pages):
        print(page)
    else:
        await ctx.step(close)
""",
    "branches, which have keys of their own": """
async def process(ctx, pages):
    async def branch(ctx):
        await ctx.step(draft)

    await ctx.branches(*[branch for page in pages])
    await ctx.branches(lambda ctx: ctx.step(draft), one_branch)

async def one_branch(ctx):
    return await ctx.step(draft)
""",
    "what has no key option": """
async def process(ctx, children):
    for child in children:
        await ctx.now()
        await child.result()
""",
    "what runs in a step": """
async def process(ctx):
    def measure():
        return time.time()

    async def guarded():
        try:
            return uuid4()
        except BaseException:
            return None

    await ctx.step(measure)
    await ctx.step(lambda: random.random())
    await ctx.step(guarded, key="k")
    await ctx.step(apply, measure)
""",
    "tasks without operations": """
async def process(ctx):
    asyncio.create_task(heat(ctx.process_id))
    await asyncio.gather(fetch(await ctx.step(draft)))
    await asyncio.gather(facts(ctx))
""",
    "what is called like a clock and is none": """
async def process(ctx, time, random):
    time.time()
    random.random()
    uuid = make()
    uuid.uuid4()
    seeded = random.Random(5)
    return datetime.fromtimestamp(0), uuid.uuid5(uuid.NAMESPACE_URL, "a")
""",
    "seeded chance, and names that are made of something": """
async def process(ctx):
    chance = random.Random(await ctx.random())
    return chance.random(), uuid.uuid5(uuid.NAMESPACE_URL, "a"), time.strftime("%Y", time.gmtime(0))
""",
    "handlers that raise again on every way": """
async def process(ctx):
    try:
        await ctx.step(draft)
    except BaseException as told:
        if ctx.attempt > 1:
            raise
        else:
            raise told
    try:
        await ctx.step(draft)
    except CancelledError:
        try:
            await ctx.step(clean_up)
        finally:
            raise
    try:
        await ctx.step(draft)
    except CancelledError:
        with suppress(Exception):
            await ctx.step(clean_up, key="again")
        raise
    except Exception:
        return None
""",
    "handlers around nothing durable": """
async def process(ctx):
    try:
        plain()
    except BaseException:
        pass
    with suppress(CancelledError):
        await asyncio.sleep(1)
    try:
        async def never_called_here():
            await elsewhere.step(draft)
    except BaseException:
        pass
""",
    "operations that are awaited later, or returned to who awaits them": """
async def process(ctx):
    first, second = ctx.step(draft, "a"), ctx.step(draft, "b")
    kept = ctx.step(draft, "c")
    await ctx.gather(first, second, kept)
    await later_of(ctx, "d")
    return await ctx.step(draft, "e")
""",
    "a plain process, whose operations are done at once": """
def process(ctx):
    ctx.step(draft, "a")
    ctx.emit("told")
    value = ctx.step(draft, "b")
    ctx.result(ctx.start(child))
    ctx.gather(ctx.later.step(draft, "c"), ctx.later.sleep(1))
""",
    "other functions of the module": """
async def process(ctx):
    await ctx.step(unrelated)

def unrelated():
    return time.time(), [c.step(draft) for c in uuid4()]
""",
}


def checked(code: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """(line, rule) as marked, and as found."""
    source = HEAD + code
    marked = [
        (number, rule)
        for number, line in enumerate(source.splitlines(), 1)
        for rule in re.findall(r"# !(\w+)", line)
    ]  # fmt: skip
    (process,) = (
        node for node in ast.parse(source).body
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name == "process"
    )  # fmt: skip
    entry = Entry("work", first_line(process), "ctx", isinstance(process, ast.FunctionDef))
    return marked, [(finding.line, finding.rule) for finding in findings_in(source, "shop.py", [entry])]


@pytest.mark.parametrize("code", FOUND.values(), ids=FOUND)
def test_a_mistake_is_found_where_it_stands(code: str) -> None:
    marked, found = checked(code)
    assert marked
    assert found == marked


@pytest.mark.parametrize("code", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_right_is_left_alone(code: str) -> None:
    assert checked(code) == ([], [])


def findings(code: str, *, is_blocking: bool = False) -> list[str]:
    entry = Entry("work", 1, "ctx", is_blocking)
    return [f"{f.line}:{f.column} {f.process}: {f.what}. {f.fix}" for f in findings_in(code, "shop.py", [entry])]


def test_a_finding_says_where_what_and_what_to_write_instead() -> None:
    assert findings("async def work(ctx, pages):\n    for p in pages:\n        await ctx.step(draft, p)") == [
        "3:15 work: ctx.step(draft, …) in a loop has no key. give it a key that says what it is for: ctx.step(…, key=…)"
    ]
    assert findings("async def work(ctx):\n    ctx.sleep(5)\n    ctx.emit('told')") == [
        "2:5 work: ctx.sleep(5) is never awaited. await ctx.sleep(5), or give it to ctx.gather or ctx.race",
        "3:5 work: ctx.emit('told') is never awaited. await ctx.emit('told')",
    ]


def test_the_fix_for_a_plain_function_has_no_await() -> None:
    code = "def work(ctx):\n    import time\n    ctx.later.sleep(5)\n    return time.time()"
    assert findings(code, is_blocking=True) == [
        "3:5 work: ctx.later.sleep(5) is never awaited. give it to ctx.gather or ctx.race",
        "4:12 work: time.time() outside of a step. use ctx.now(), a time that is recorded, or make it in a step",
    ]


def test_a_function_that_several_processes_use_is_spoken_of_once() -> None:
    source = (
        "async def a(ctx):\n    await x(ctx)\nasync def b(ctx):\n    await x(ctx)\nasync def x(ctx):\n    ctx.sleep(1)"
    )
    found = findings_in(source, "shop.py", [Entry("a", 1, "ctx", False), Entry("b", 3, "ctx", False)])
    assert [(finding.line, finding.process) for finding in found] == [(6, "a")]


def test_a_decorated_function_is_known_by_its_first_decorator_and_a_method_by_its_own() -> None:
    source = "@host.process(\n    name='x')\n@other\nasync def work(ctx):\n    ctx.sleep(1)"
    assert [f.line for f in findings_in(source, "shop.py", [Entry("x", 1, "ctx", False)])] == [5]
    source = "class Shop:\n    class Inner:\n        async def work(self, ctx):\n            ctx.sleep(1)"
    assert [f.line for f in findings_in(source, "shop.py", [Entry("x", 3, "ctx", False)])] == [4]


def test_a_source_in_which_the_process_is_not_is_refused() -> None:
    with pytest.raises(NotFound, match="line 7"):
        findings_in("async def work(ctx):\n    ctx.sleep(1)", "shop.py", [Entry("work", 7, "ctx", False)])


def test_every_operation_that_a_context_has_is_known() -> None:
    made = {
        name for name, method in vars(ProcessContext).items() if not name.startswith("_") and inspect.isfunction(method)
    }
    no_operations = {"publish", "progress", "check_cancelled"}
    assert made - no_operations == OPERATIONS
    keyed = {
        name
        for name in OPERATIONS
        if name == "step" or "key" in inspect.signature(getattr(ProcessContext, name)).parameters
    }
    assert keyed == KEYED
