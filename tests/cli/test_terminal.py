"""What a terminal gets, what a pipe gets, and what the command line costs to start."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from perdure import __version__
from perdure.cli.main import COMMANDS
from perdure.cli.text import duration, json_text, moment, safe, size
from tests.cli.running import PROGRAM, Perdure, Start

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def on_a_terminal(*arguments: str, columns: int = 100, **environment: str) -> str:
    """What a command writes when both of its outputs are one terminal."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # EIO: the other end was closed
        pass
    process.wait(30)
    os.close(ours)
    return written.decode()


@pytest.mark.usefixtures("work_db")
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    "command", [("ls", "-a"), ("show", "failed-1"), ("events", "failed-1"), ("events", "-f", "failed-1"),
                ("wait", "failed-1"), ("explain", "failed-1")],
    ids=" ".join,
)  # fmt: skip
def test_no_stored_control_character_reaches_a_pipe(
    command: tuple[str, ...], json: tuple[str, ...], perdure: Perdure
) -> None:
    result = perdure(*command, *json)
    assert UNSAFE.findall(result.stdout.replace("\n", "")) == []


@pytest.mark.usefixtures("work_db")
def test_stored_control_characters_are_written_out_on_a_terminal() -> None:
    shown = on_a_terminal("show", "failed-1", columns=300)
    assert r"red \x1b[31m\r\nline \u202eodd\u202c \x9b2J \x7f end" in shown
    assert "\u202e" not in shown
    assert "\x9b" not in shown


@pytest.mark.usefixtures("work_db")
def test_a_terminal_gets_colours_and_a_header_and_a_pipe_neither(perdure: Perdure) -> None:
    shown, piped = on_a_terminal("ls", "-a"), perdure("ls", "-a").stdout
    assert "\x1b[" in shown
    assert "DEFINITION" in shown
    assert "\x1b" not in piped
    assert "DEFINITION" not in piped
    assert piped.splitlines()[0].count("\t") == 5


@pytest.mark.usefixtures("work_db")
def test_no_color_takes_the_colours_away() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_a_terminal("ls", "-a", NO_COLOR="1"))


@pytest.mark.usefixtures("work_db")
def test_nothing_is_cut_in_a_pipe_and_the_note_is_on_a_narrow_terminal(perdure: Perdure) -> None:
    assert "ValueError: red" in perdure("ls", "-a").stdout
    assert r"\x7f end" in perdure("ls", "-a").stdout
    narrow = on_a_terminal("ls", "-a", columns=70)
    assert r"\x7f end" not in narrow
    assert "failed-1" in narrow


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_the_help_of_every_command_has_an_example(name: str | None, perdure: Perdure) -> None:
    result = perdure(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "--db" in result.stdout
    assert "--json" in result.stdout


def test_every_line_of_help_fits_a_terminal_of_80_columns(perdure: Perdure) -> None:
    for name in COMMANDS:
        for line in perdure(name, "--help").stdout.splitlines():
            assert len(line) <= 80, line


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_neither_rich_nor_apsw(option: str) -> None:
    program = (
        f"import sys\nsys.argv = ['perdure', '{option}']\ntry:\n    from perdure.cli.main import main\n    main()\n"
    )
    program += "finally:\n    print(sorted({'rich', 'apsw'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[-1] == "[]"


def test_version_says_name_and_version(perdure: Perdure) -> None:
    assert perdure("--version").stdout == f"perdure {__version__}\n"


@pytest.mark.usefixtures("work_db")
def test_a_reader_that_leaves_early_is_no_error(start_process: Start) -> None:
    process = start_process("ls", "-a")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) in (0, 141)


def test_text_is_made_safe_and_stays_readable() -> None:
    assert safe("plain é 漢 text") == "plain é 漢 text"
    assert safe("a\x1bb\tc\u2028d\udc80\U000e0041") == r"a\x1bb\tc\u2028d\udc80\U000e0041"
    assert json_text({"k": "é\x9b\u202e\x7f"}) == r'{"k": "é\u009b\u202e\u007f"}'


def test_durations_moments_and_sizes_are_short() -> None:
    assert [duration(ms) for ms in (7, 2_500, 45_000, 200_000, 14_700_000, 520_000_000)] == [
        "7ms", "2.5s", "45s", "3m20s", "4h05m", "6d",
    ]  # fmt: skip
    assert moment(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert moment(10**18) == "1000000000000000000 ms"
    assert [size(n) for n in (0, 999, 1_500, 2_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB"]


def test_a_duration_option_takes_units_and_refuses_the_rest() -> None:
    from perdure.cli.surface import Duration

    convert = Duration().convert
    assert [convert(text, None, None) for text in ("3", "500ms", "5m", "2h", "1d")] == [3, 0.5, 300, 7200, 86400]
    for text in ("", "-1", "x", "nan", "1e99", "5 parsecs"):
        with pytest.raises(click.BadParameter):
            convert(text, None, None)


def test_the_working_directory_is_left_as_it_was(perdure: Perdure) -> None:
    perdure("--help")
    assert [path.name for path in Path().iterdir()] == ["shop.py"]
