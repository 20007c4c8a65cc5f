"""The house has floors and rooms; this reads every import and names the wall that one breaks.

A module imports from the floors below its own, and from its own room. All imports count: those inside functions, those
under TYPE_CHECKING, and modules loaded by a literal name through importlib.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"


class Room(NamedTuple):
    """`modules` names the modules of a room; `x.*` is x and everything below it."""

    name: str
    floor: int
    modules: tuple[str, ...]


HOUSE = (
    Room("nouns", 0, ("perdure.clock", "perdure.errors", "perdure.ids", "perdure.model.*")),
    Room(
        "decisions",
        1,
        (
            "perdure.transitions.*",
            "perdure.codec",
            "perdure.canonical",
            "perdure.values",
            "perdure.failures",
            "perdure.durations",
        ),
    ),
    Room("contract", 2, ("perdure.contract.*",)),
    Room("stores", 3, ("perdure.stores.*",)),
    Room("runtime", 3, ("perdure.runtime.*",)),
    Room("engines", 3, ("perdure.engines.*",)),
    Room("host", 4, ("perdure", "perdure.host", "perdure.hosting.*")),
    Room("cli", 5, ("perdure.cli.*",)),
    Room("web", 5, ("perdure.web.*",)),
    Room("telemetry", 5, ("perdure.telemetry.*",)),
    Room("testing", 5, ("perdure.testing.*",)),  # beside the surfaces: imports none of them, and nothing imports it
)

# Chambers of one room that don't import each other, nor does what the room has in common import one of them.
CHAMBERS = (("perdure.stores.*", ("perdure.stores.sqlite.*", "perdure.stores.postgres.*")),)

PURE = ("perdure.model.*", *HOUSE[1].modules)
NOT_IN_PURE = ("asyncio", "apsw", "sqlite3", "threading", "time", "random", "os", "socket")

# (module, imported): the reason it may stand. Empty, and it should stay so.
EXCEPTIONS: Mapping[tuple[str, str], str] = {}


class Import(NamedTuple):
    module: str
    line: int
    target: str


def test_no_module_of_perdure_breaks_a_wall() -> None:
    broken = broken_walls(sources_of(SOURCE))
    assert not broken, "\n" + "\n".join(broken)


def test_every_exception_is_still_needed() -> None:
    sources = sources_of(SOURCE)
    standing = {(found.module, found.target) for found in imports_of(sources)}
    assert set(EXCEPTIONS) <= standing


def test_no_module_lives_in_two_rooms() -> None:
    for module in sources_of(SOURCE):
        assert sum(lives_in(module, room.modules) for room in HOUSE) <= 1, module


# --- the checker can fail --------------------------------------------------------------------------------------

PLANTED_HOUSE = {
    "perdure": "",
    "perdure.clock": "",
    "perdure.ids": "",
    "perdure.errors": "",
    "perdure.codec": "",
    "perdure.model": "",
    "perdure.model.record": "",
    "perdure.transitions": "",
    "perdure.transitions.fold": "",
    "perdure.contract.registry": "",
    "perdure.stores.rows": "",
    "perdure.stores.sqlite.store": "",
    "perdure.stores.postgres.store": "",
    "perdure.runtime.worker": "",
    "perdure.engines.python.context": "",
    "perdure.host": "",
    "perdure.cli.main": "",
    "perdure.web.app": "",
    "perdure.testing.loop": "",
}


@pytest.mark.parametrize(
    ("module", "source", "wall"),
    [
        ("perdure.model.record", "import perdure.codec", "floor 0 (nouns) may not import floor 1 (decisions)"),
        ("perdure.model.record", "from perdure import codec", "may not import floor 1 (decisions)"),
        ("perdure.model.record", "from ..transitions.fold import fold", "may not import floor 1 (decisions)"),
        ("perdure.model.record", "from perdure import Host", "may not import floor 4 (host)"),
        ("perdure.transitions.fold", "from perdure.stores import rows", "may not import floor 3 (stores)"),
        ("perdure.stores.rows", "from perdure.runtime.worker import Worker", "may not import floor 3 (runtime)"),
        (
            "perdure.stores.postgres.store",
            "from perdure.stores.sqlite import store",
            "chamber perdure.stores.postgres.* may not import perdure.stores.sqlite.*",
        ),
        (
            "perdure.stores.sqlite.store",
            "import perdure.stores.postgres.store",
            "chamber perdure.stores.sqlite.* may not import perdure.stores.postgres.*",
        ),
        (
            "perdure.stores.rows",
            "from .sqlite.store import x",
            "what perdure.stores.* has in common may not import perdure.stores.sqlite.*",
        ),
        ("perdure.engines.python.context", "import perdure.stores.rows as r", "may not import floor 3 (stores)"),
        ("perdure.runtime.worker", "from perdure.host import Host", "may not import floor 4 (host)"),
        ("perdure.cli.main", "from perdure.web import app", "floor 5 (cli) may not import floor 5 (web)"),
        ("perdure.cli.main", "import perdure.testing.loop", "may not import floor 5 (testing)"),
        ("perdure.testing.loop", "import perdure.cli.main", "floor 5 (testing) may not import floor 5 (cli)"),
        ("perdure.contract.registry", "def f():\n    import perdure.host", "may not import floor 4 (host)"),
        (
            "perdure.contract.registry",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from perdure.host import Host",
            "may not import floor 4 (host)",
        ),
        (
            "perdure.contract.registry",
            "import importlib\nimportlib.import_module('perdure.host')",
            "may not import floor 4 (host)",
        ),
        ("perdure.helpers", "", "stands in no room"),
        *[("perdure.transitions.fold", f"import {banned}", "stays pure") for banned in NOT_IN_PURE],
        ("perdure.model.record", "from os.path import join", "stays pure"),
        ("perdure.codec", "def f():\n    from time import time", "stays pure"),
    ],
)
def test_a_planted_bad_import_is_named(module: str, source: str, wall: str) -> None:
    broken = broken_walls(PLANTED_HOUSE | {module: source})

    assert len(broken) == 1
    assert broken[0].startswith(f"{module} line ")
    assert wall in broken[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("perdure.model.record", "from perdure.ids import ProcessId\nfrom perdure import errors\nimport re"),
        ("perdure.clock", "import time, asyncio"),
        ("perdure.transitions.fold", "from perdure.model import record\nimport perdure.codec"),
        ("perdure.stores.sqlite.store", "from ..rows import Rows\nimport apsw\nfrom perdure.contract import registry"),
        ("perdure.host", "import perdure.stores.rows, perdure.runtime.worker"),
        ("perdure", "from perdure.host import Host"),
        ("perdure.cli.main", "from perdure import Host\nimport perdure.contract.registry"),
        ("perdure.testing.loop", "from perdure import Host\nimport perdure.runtime.worker"),
    ],
)
def test_an_import_from_below_or_from_the_same_room_stands(module: str, source: str) -> None:
    assert broken_walls(PLANTED_HOUSE | {module: source}) == []


def test_a_message_names_the_module_the_line_and_the_import() -> None:
    (message,) = broken_walls(PLANTED_HOUSE | {"perdure.stores.rows": "\n\nfrom perdure.host import Host"})
    assert message == (
        "perdure.stores.rows line 3 imports perdure.host: floor 3 (stores) may not import floor 4 (host)"
    )


# --- the checker -----------------------------------------------------------------------------------------------


def broken_walls(sources: Mapping[str, str]) -> list[str]:
    """One sentence for each import that breaks a wall, and for each module that stands in no room."""
    homeless = [
        f"{module} line 1 stands in no room of the house: add it to the table in {Path(__file__).name}"
        for module in sources
        if room_of(module) is None
    ]
    return homeless + [
        f"{found.module} line {found.line} imports {found.target}: {wall}"
        for found in imports_of(sources)
        if (found.module, found.target) not in EXCEPTIONS and (wall := wall_between(found.module, found.target))
    ]


def wall_between(module: str, target: str) -> str | None:
    if lives_in(module, PURE) and target.split(".")[0] in NOT_IN_PURE:
        return f"{module} stays pure: no {', '.join(NOT_IN_PURE)}"
    for room, chambers in CHAMBERS:
        own, other = (next((c for c in chambers if lives_in(name, [c])), None) for name in (module, target))
        if other is not None and own != other and lives_in(module, [room]):
            who = f"what {room} has in common" if own is None else f"chamber {own}"
            return f"{who} may not import {other}"
    here, there = room_of(module), room_of(target)
    if here is None or there is None or here == there or there.floor < here.floor:
        return None
    return f"floor {here.floor} ({here.name}) may not import floor {there.floor} ({there.name})"


def room_of(module: str) -> Room | None:
    return next((room for room in HOUSE if lives_in(module, room.modules)), None)


def lives_in(module: str, patterns: Iterable[str]) -> bool:
    return any(
        module == pattern.removesuffix(".*") or (pattern.endswith("*") and module.startswith(pattern[:-1]))
        for pattern in patterns
    )


def imports_of(sources: Mapping[str, str]) -> Iterator[Import]:
    packages = {module.rpartition(".")[0] for module in sources}
    for module, source in sources.items():
        package = module if module in packages else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(source)):
            for target in targets_of(node, package, sources.keys() | packages):
                yield Import(module, getattr(node, "lineno", 1), target)


def targets_of(node: ast.AST, package: str, known: Iterable[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module=stem, names=names, level=level):
            parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            base = ".".join([*parts, *([stem] if stem else [])])
            for name in names:  # `from a import b` is the module a.b if there is one, else a
                yield f"{base}.{name.name}" if f"{base}.{name.name}" in known else base
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value


def sources_of(root: Path) -> dict[str, str]:
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path.read_text("utf-8")
        for path in sorted(root.rglob("*.py"))
    }
