"""Time, chance, names, tasks, threads and processes come in through ports; nothing else may reach for them.

The simulator can only run the real code if this holds. Names are followed through imports and aliases. A module that is
itself a port is in ALLOWED with its reason; what is unsafe is in NEVER and has no exceptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# What is banned, and what to use. `x.*` is the module x and everything in it; `*.x` is that attribute of anything.
PORTS = {
    "time.*": "take a Clock or a Moment",
    "datetime.datetime.now": "take a Clock or a Moment",
    "datetime.datetime.utcnow": "take a Clock or a Moment",
    "datetime.datetime.today": "take a Clock or a Moment",
    "datetime.date.today": "take a Clock or a Moment",
    "random.*": "take Ids.fraction",
    "secrets.*": "take Ids.token",
    "uuid.uuid1": "take Ids.process_id",
    "uuid.uuid4": "take Ids.process_id",
    "os.urandom": "take Ids.token",
    "asyncio.sleep": "take Clock.sleep",
    "asyncio.wait_for": "use asyncio.timeout",
    "asyncio.create_task": "take the spawner, or use a TaskGroup",
    "asyncio.ensure_future": "take the spawner, or use a TaskGroup",
    "asyncio.get_running_loop().create_task": "take the spawner, or use a TaskGroup",
    "asyncio.get_event_loop().create_task": "take the spawner, or use a TaskGroup",
    "asyncio.to_thread": "take the spawner",
    "*.run_in_executor": "take the spawner",
    "threading.Thread": "a thread belongs to a store or the spawner",
    "threading.Timer": "a thread belongs to a store or the spawner",
    "concurrent.futures.ThreadPoolExecutor": "take the spawner",
    "concurrent.futures.ProcessPoolExecutor": "take the spawner",
    "asyncio.create_subprocess_exec": "take the process port",
    "asyncio.create_subprocess_shell": "take the process port",
    "subprocess.*": "take the process port",
}
NEVER = {
    "pickle.*": "stored bytes must not run code: use the codec",
    "marshal.*": "stored bytes must not run code: use the codec",
    "eval": "text must not run as code",
    "exec": "text must not run as code",
    "yaml.load": "it builds any object: use yaml.safe_load",
}

TASKS = ("asyncio.create_task", "asyncio.ensure_future", "asyncio.get_running_loop().create_task")
THREADS = ("threading.Thread", "concurrent.futures.ThreadPoolExecutor")


class Allowed(NamedTuple):
    """The modules that match `path` may use what `bans` names, because of `reason`."""

    path: str
    bans: tuple[str, ...]
    reason: str


ALLOWED = (
    Allowed("perdure/clock.py", ("time.*", "asyncio.sleep"), "it is the Clock port"),
    Allowed("perdure/ids.py", ("time.*", "random.*", "secrets.*"), "it is the Ids port"),
    Allowed(
        "perdure/runtime/spawner.py", (*TASKS, *THREADS, "asyncio.to_thread", "*.run_in_executor"), "it is the spawner"
    ),
    Allowed("perdure/stores/sqlite/*", THREADS, "a connection lives on a thread of its own, owned by the store"),
    Allowed("perdure/stores/postgres/own_loop.py", THREADS, "the store's own event loop is a thread that it owns"),
    Allowed("perdure/cli/*", tuple(PORTS), "the command line is the outside world: it makes the real ports"),
    Allowed("perdure/engines/command/link.py", ("subprocess.*",), "it is the port of programs: it starts supervisors"),
    Allowed("perdure/engines/command/supervisor/*", ("time.*",), "a program of its own, outside of every simulation"),
    Allowed("perdure/testing/clock.py", ("asyncio.sleep", "random.*"), "the virtual clock and the seeded ids"),
    Allowed("perdure/testing/tape.py", ("random.*",), "the tape fills itself from a seeded generator"),
)


class Use(NamedTuple):
    """One place where a banned name is used."""

    line: int
    name: str
    ban: str


def test_nothing_outside_a_port_reaches_past_it() -> None:
    found = [
        f"{path.relative_to(SOURCE)} line {use.line} uses {use.name}: {(PORTS | NEVER)[use.ban]}"
        for path in sorted(SOURCE.rglob("*.py"))
        for use in forbidden_uses(path.read_text("utf-8"), path.relative_to(SOURCE).as_posix())
    ]
    assert not found, "\n" + "\n".join(found)


# --- the checker can fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ban", "source"),
    [
        ("time.*", "import time\n"),
        ("time.*", "import time as t\n"),
        ("time.*", "def f():\n    from time import monotonic as m\n"),
        ("datetime.datetime.now", "import datetime as d\nd.datetime.now(d.UTC)"),
        ("datetime.datetime.now", "from datetime import datetime as when\nnow = when.now"),
        ("datetime.datetime.utcnow", "from datetime import datetime\ndatetime.utcnow()"),
        ("datetime.datetime.today", "from datetime import datetime\ndatetime.today()"),
        ("datetime.date.today", "from datetime import date\ndate.today()"),
        ("random.*", "import random\n"),
        ("random.*", "from random import Random\n"),
        ("secrets.*", "import secrets\n"),
        ("uuid.uuid1", "import uuid\nuuid.uuid1()"),
        ("uuid.uuid4", "from uuid import uuid4\n"),
        ("os.urandom", "import os\nos.urandom(8)"),
        ("asyncio.sleep", "import asyncio\nasync def f():\n    await asyncio.sleep(1)"),
        ("asyncio.sleep", "from asyncio import sleep as nap\n"),
        ("asyncio.wait_for", "import asyncio as aio\naio.wait_for"),
        ("asyncio.create_task", "import asyncio\nasyncio.create_task(f())"),
        ("asyncio.create_task", "from asyncio import tasks\ntasks.create_task(f())"),
        ("asyncio.create_task", "from asyncio.tasks import create_task\n"),
        ("asyncio.ensure_future", "import asyncio\nasyncio.ensure_future(f())"),
        ("asyncio.get_running_loop().create_task", "import asyncio\nasyncio.get_running_loop().create_task(f())"),
        ("asyncio.get_event_loop().create_task", "from asyncio import get_event_loop as g\ng().create_task(f())"),
        ("asyncio.to_thread", "import asyncio\nasyncio.to_thread(f)"),
        ("*.run_in_executor", "loop.run_in_executor(None, f)"),
        ("*.run_in_executor", "import asyncio\nasyncio.get_running_loop().run_in_executor(None, f)"),
        ("threading.Thread", "import threading\nclass Own(threading.Thread): ..."),
        ("threading.Timer", "from threading import Timer\n"),
        ("concurrent.futures.ThreadPoolExecutor", "from concurrent.futures import ThreadPoolExecutor\n"),
        ("concurrent.futures.ThreadPoolExecutor", "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor()"),
        ("concurrent.futures.ProcessPoolExecutor", "from concurrent import futures\nfutures.ProcessPoolExecutor()"),
        ("asyncio.create_subprocess_exec", "import asyncio\nasyncio.create_subprocess_exec('x')"),
        ("asyncio.create_subprocess_shell", "import asyncio\nasyncio.create_subprocess_shell('x')"),
        ("subprocess.*", "import subprocess\n"),
        ("subprocess.*", "from subprocess import run\n"),
        ("pickle.*", "import pickle\n"),
        ("marshal.*", "from marshal import loads\n"),
        ("eval", "eval('1')"),
        ("exec", "run = exec"),
        ("yaml.load", "import yaml\nyaml.load(text)"),
    ],
)
def test_a_planted_use_is_found(ban: str, source: str) -> None:
    assert [use.ban for use in forbidden_uses(source, "perdure/runtime/worker.py")] == [ban]


def test_every_ban_is_proved_able_to_fail() -> None:
    (parametrize,) = test_a_planted_use_is_found.pytestmark  # type: ignore[attr-defined]
    assert {ban for ban, _ in parametrize.args[1]} == PORTS.keys() | NEVER.keys()


@pytest.mark.parametrize(
    "source",
    [
        "clock.sleep(1); store.time; self.random()",
        "import asyncio\nasync def f():\n    async with asyncio.TaskGroup() as g:\n        g.create_task(h())",
        "import asyncio\nasyncio.timeout(1)",
        "from datetime import datetime\ndatetime.fromtimestamp(0)",
        "import threading\nthreading.Lock(); threading.get_ident()",
        "import uuid, os\nuuid.UUID(int=1); os.path.join('a')",
        "registry.eval(); record.exec = 1",
        "def sleep(): ...\nsleep()",
    ],
)
def test_what_only_looks_like_a_banned_name_stands(source: str) -> None:
    assert list(forbidden_uses(source, "perdure/runtime/worker.py")) == []


def test_a_port_may_use_what_its_entry_names_and_no_more() -> None:
    assert not list(forbidden_uses("import time\n", "perdure/clock.py"))
    assert list(forbidden_uses("import random\n", "perdure/clock.py"))
    assert not list(forbidden_uses("from threading import Thread\n", "perdure/stores/sqlite/writer.py"))
    assert list(forbidden_uses("import time\n", "perdure/stores/sqlite/writer.py"))
    assert list(forbidden_uses("from threading import Thread\n", "perdure/stores/memory.py"))
    assert not list(forbidden_uses("import subprocess\n", "perdure/cli/doctor.py"))


@pytest.mark.parametrize("path", ["perdure/cli/main.py", "perdure/testing/loop.py", "perdure/clock.py"])
def test_what_is_unsafe_is_allowed_nowhere(path: str) -> None:
    assert list(forbidden_uses("import pickle\n", path))
    assert list(forbidden_uses("eval('1')", path))


def test_an_allowance_names_known_bans_and_a_reason() -> None:
    for entry in ALLOWED:
        assert set(entry.bans) <= PORTS.keys()
        assert entry.reason


# --- the checker -----------------------------------------------------------------------------------------------


def forbidden_uses(source: str, path: str) -> list[Use]:
    """The uses of banned names in `source` that the module at `path` has no allowance for."""
    allowed = {ban for entry in ALLOWED if fnmatchcase(path, entry.path) for ban in entry.bans}
    uses = {
        Use(line, name, ban)
        for line, name in names_used(ast.parse(source))
        for ban in PORTS.keys() | NEVER.keys()
        if names(ban, name) and ban not in allowed
    }
    return sorted(uses)


def names(ban: str, name: str) -> bool:
    if ban.startswith("*."):
        return name.endswith(ban[1:])
    return name == ban.removesuffix(".*") or (ban.endswith(".*") and name.startswith(ban[:-1]))


def names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every dotted name of the source with its line, as it is called where it comes from."""
    aliases = {local: origin for node in ast.walk(tree) for local, origin in imported(node)}
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if f"{name.name}.*" in PORTS | NEVER)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, origin) for _, origin in imported(node))
        elif isinstance(node, ast.Name | ast.Attribute) and node not in inner:
            yield node.lineno, dotted(node, aliases)


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, where it comes from) for each name an import binds."""
    match node:
        case ast.Import(names=found):
            for name in found:
                yield (name.asname, name.name) if name.asname else (name.name.split(".")[0], name.name.split(".")[0])
        case ast.ImportFrom(module=str(module), names=found, level=0):
            for name in found:
                yield name.asname or name.name, public(f"{module}.{name.name}")


def dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return aliases.get(name, name if name in NEVER else f"?{name}")  # ? marks a name of the module's own
        case ast.Attribute(value=value, attr=attr):
            return public(f"{dotted(value, aliases)}.{attr}")
        case ast.Call(func=func):
            return f"{dotted(func, aliases)}()"
    return "?"


def public(name: str) -> str:
    """`asyncio.tasks.sleep` and the like are `asyncio.sleep` by another door."""
    return re.sub(r"^(asyncio|concurrent\.futures)\.(tasks|subprocess|threads|thread|process)\.", r"\1.", name)
