"""What a command is given: its arguments byte for byte, and no environment but what is allowed or passed."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.engines.command.request import environment
from perdure.errors import InvalidOption, InvalidPayload
from tests.command.programs import lines_of, open_host

ECHO = "import sys, os, json\nprint(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))"

argument = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.lists(argument, max_size=12))
def test_every_argument_arrives_byte_for_byte(arguments: list[str]) -> None:
    async def test() -> list[str]:
        async with open_host() as host:
            return await lines_of(await host.command([sys.executable, "-I", "-S", "-c", ECHO, *arguments]))

    (said,) = asyncio.run(test())
    assert [bytes.fromhex(text) for text in msgspec.json.decode(said)] == [text.encode() for text in arguments]


@pytest.mark.parametrize("bad", ["a\0b", "\0", "\ud800", "a\udcff"])
def test_what_is_no_argument_is_refused_before_anything_is_written(bad: str) -> None:
    async def test() -> None:
        async with open_host() as host:
            for path, call in (
                ("$.argv[1]", host.command(["echo", bad])),
                ("$.argv[2]", host.shell(bad)),
                ("$.env.NAME", host.command(["env"], env={"NAME": bad})),
            ):
                with pytest.raises(InvalidPayload) as refused:
                    await call
                assert refused.value.path == path
            with pytest.raises(InvalidPayload):
                await host.command(["env"], env={bad: "value"})
            assert await host.registry.count() == 0

    asyncio.run(test())


@pytest.mark.parametrize("argv", ["echo hello", b"echo", [], [""], [1], ["echo", None], [b"echo"], None])
def test_argv_is_a_list_of_strings_with_a_program(argv: object) -> None:
    async def test() -> None:
        async with open_host() as host:
            with pytest.raises(InvalidPayload) as refused:
                await host.command(argv)  # type: ignore[arg-type]
            assert refused.value.path.startswith("$.argv")
            assert await host.registry.count() == 0

    asyncio.run(test())


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {1: "x"}, {"A": 1}, {"A": None}])
def test_the_environment_is_names_and_strings(env: dict[str, str]) -> None:
    async def test() -> None:
        async with open_host() as host:
            with pytest.raises(InvalidPayload):
                await host.command(["env"], env=env)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cwd", "relative/path"), ("cwd", ""), ("grace", -1), ("grace", 3_601), ("max_lines", -1),
        ("max_lines", True), ("max_line_bytes", 0), ("max_line_bytes", 131_073), ("max_output_bytes", 67_108_865),
    ],
)  # fmt: skip
def test_options_have_bounds(option: str, value: object) -> None:
    async def test() -> None:
        async with open_host() as host:
            with pytest.raises(InvalidOption) as refused:
                await host.command(["true"], **{option: value})  # type: ignore[arg-type]
            assert refused.value.option == option

    asyncio.run(test())


def test_a_command_gets_the_allowed_variables_what_was_passed_and_what_perdure_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    for name in ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SECRET", "LD_PRELOAD", "PYTHONPATH", "PATHS", "XLC_ALL"):
        monkeypatch.setenv(name, f"worker's {name}")
    monkeypatch.setenv("PATH", os.defpath)

    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["cat", "/proc/self/environ"], id="p", env={"OWN": "a=b ü", "HOME": "/home"})
            (said,) = await lines_of(handle)
            pairs = dict(pair.split("=", 1) for pair in said.rstrip("\ufffd").split("\ufffd"))
            assert len(pairs.pop("PERDURE_COMMAND")) > 10
            assert pairs == {
                "PATH": os.defpath, "HOME": "/home", "LANG": "worker's LANG", "LC_ALL": "worker's LC_ALL",
                "TZ": "worker's TZ", "TMPDIR": "worker's TMPDIR", "OWN": "a=b ü", "PERDURE_PROCESS_ID": "p",
                "PERDURE_FENCE": "1",
            }  # fmt: skip

    asyncio.run(test())


def test_what_is_passed_goes_before_what_is_allowed_and_perdures_own_before_both() -> None:
    made = environment({"TZ": "passed", "MARK": "passed"}, {"TZ": "worker", "PATH": "p", "X": "x"}, {"MARK": "own"})
    assert made == {"TZ": "passed", "PATH": "p", "MARK": "own"}
