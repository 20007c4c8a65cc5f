"""What is asked for when a command is started: checked before anything is written, and kept in its registration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

import msgspec

from perdure import canonical
from perdure.durations import milliseconds
from perdure.errors import InvalidOption, InvalidPayload
from perdure.ids import check_process_id
from perdure.model.registration import Definition, Identity, ParentEnd, Registration
from perdure.values import ValueType, value_type

COMMAND = Definition("command", "command", 1)

DEFAULT_GRACE = timedelta(seconds=10)
DEFAULT_MAX_LINES = 10_000
DEFAULT_MAX_LINE_BYTES = 8_192
DEFAULT_MAX_OUTPUT_BYTES = 1_048_576
LONGEST_GRACE_MS = 3_600_000

PASSED_ON = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR")
"""The variables of the worker's environment that a command gets. Everything else is passed by name, or not there."""


class CommandRequest(msgspec.Struct, frozen=True):
    """The input of a command's process. Durations in milliseconds; `env` is what was passed explicitly."""

    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    grace_ms: int
    max_lines: int
    max_line_bytes: int
    max_output_bytes: int


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended that succeeded, and what it wrote: all of it counted, `stored_lines` of it in the log.

    `truncated`: some output is not in the log, because a bound was reached or a line was cut.
    """

    exit_code: int
    signal: str | None
    stdout_lines: int
    stdout_bytes: int
    stderr_lines: int
    stderr_bytes: int
    stored_lines: int
    truncated: bool


REQUEST: ValueType[CommandRequest] = value_type(CommandRequest)
RESULT: ValueType[CommandResult] = value_type(CommandResult)


class CommandOptions(TypedDict, total=False):
    """What may be said of a command besides its argv, by whoever starts it.

    `env`: its environment, beside PATH, HOME, LANG, LC_*, TZ and TMPDIR of the worker. `cwd`: an absolute path. Told to
    stop, it gets SIGTERM and, after `grace` (0 to an hour), SIGKILL with all that descends from it; `deadline`: when it
    is told so by itself. `queue`: whose workers run it. `max_lines` (up to 1,000,000), `max_line_bytes` (1 to 131,072)
    and `max_output_bytes` (up to 64 MiB, both streams together) bound what of its output is stored. Durations are a
    timedelta, or seconds.
    """

    env: Mapping[str, str] | None
    cwd: str | None
    grace: timedelta | float
    deadline: timedelta | float | None
    queue: str
    max_lines: int
    max_line_bytes: int
    max_output_bytes: int


def command_registration(
    id: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    grace: timedelta | float = DEFAULT_GRACE,
    deadline: timedelta | float | None = None,
    queue: str = "default",
    max_lines: int = DEFAULT_MAX_LINES,
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    max_output_bytes: int = DEFAULT_MAX_OUTPUT_BYTES,
    label: str | None = None,
    parent: str | None = None,
    parent_end: ParentEnd = "cancel",
) -> Registration:
    """The registration of a command. Raises InvalidPayload (argv, env) or InvalidOption."""
    grace_ms = milliseconds(grace)
    for name, value, least, most in (
        ("grace", grace_ms, 0, LONGEST_GRACE_MS),
        ("max_lines", max_lines, 0, 1_000_000),
        ("max_line_bytes", max_line_bytes, 1, 131_072),
        ("max_output_bytes", max_output_bytes, 0, 67_108_864),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            unit = " ms" if name == "grace" else ""
            raise InvalidOption(name, value, f"{least:,} to {most:,}{unit}")
    if cwd is not None and (not isinstance(cwd, str) or not cwd.startswith("/")):
        raise InvalidOption("cwd", cwd, "an absolute path: which worker runs the command is not known yet")
    fields: dict[str, Any] = {
        "argv": _checked_argv(argv), "env": _checked_env(env or {}), "cwd": cwd, "grace_ms": grace_ms,
        "max_lines": max_lines, "max_line_bytes": max_line_bytes, "max_output_bytes": max_output_bytes,
    }  # fmt: skip
    return Registration(
        id=check_process_id(id),
        definition=COMMAND,
        recovery="owner_bound",
        input=msgspec.Raw(canonical.encode(fields)),  # refuses NUL and lone surrogates, with their path
        deadline_ms=None if deadline is None else milliseconds(deadline),
        queue=queue,
        identity=None if label is None else Identity("command", label),
        parent=parent,
        parent_end=parent_end,
    )


def program_name(argv: object) -> str:
    """What a command is called by: its program without the folder. Whether argv is one is checked elsewhere."""
    first = argv[0] if isinstance(argv, Sequence) and not isinstance(argv, str | bytes) and argv else ""
    return (first.rpartition("/")[2] if isinstance(first, str) else "") or "command"


def _checked_argv(argv: Sequence[str]) -> list[str]:
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
        problem = f"a value of type {type(argv).__name__}"
        raise InvalidPayload("$.argv", problem, "a list of strings; `host.shell(text)` asks for a shell")
    if not argv or argv[0] == "":
        raise InvalidPayload("$.argv", "no program", "the program, then its arguments")
    for at, argument in enumerate(argv):
        if type(argument) is not str:
            raise InvalidPayload(f"$.argv[{at}]", f"a value of type {type(argument).__name__}", "strings")
    return list(argv)


def _checked_env(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if type(name) is not str or name == "" or "=" in name:
            raise InvalidPayload("$.env", f"the name {name!r}", "names that are strings, not empty, without '='")
        if type(value) is not str:
            path = canonical.child_path("$.env", name)
            raise InvalidPayload(path, f"a value of type {type(value).__name__}", "strings")
    return dict(env)


def environment(passed: Mapping[str, str], worker: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command: the few variables of the worker that are passed on, what was passed with
    the command, and what Perdure says of itself."""
    kept = {name: value for name, value in worker.items() if PASSED_ON.fullmatch(name)}
    return kept | dict(passed) | dict(own)
