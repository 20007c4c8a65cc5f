"""The entry point: finds the command, runs it, and says what went wrong in the same words everywhere."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from perdure import __version__
from perdure.cli.exit_codes import MEANINGS, ExitCode, of_error
from perdure.cli.surface import DEFAULT_URL, URL_VARIABLE, Signalled
from perdure.cli.text import json_text, safe
from perdure.errors import PerdureError, StoreError, UnknownProcess

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("perdure.cli.commands.demo", "Try it out: fingerprint a folder tree; kill it and go on."),
    "worker": ("perdure.cli.commands.worker", "Run the processes of a host until SIGTERM or Ctrl-C."),
    "start": ("perdure.cli.commands.start", "Start a process."),
    "run": ("perdure.cli.commands.run", "Run a command of the system as a process."),
    "ls": ("perdure.cli.commands.ls", "List processes: live ones, or all with -a."),
    "show": ("perdure.cli.commands.show", "Everything known of one process."),
    "events": ("perdure.cli.commands.events", "The log of one process; -f follows it, --live with its output."),
    "journal": ("perdure.cli.commands.journal", "What the code of a process was given: steps, waits, children."),
    "wait": ("perdure.cli.commands.wait", "Wait until processes have ended."),
    "cancel": ("perdure.cli.commands.change", "Ask a process to stop."),
    "abandon": ("perdure.cli.commands.change", "Give a process up that nobody may finish."),
    "explain": ("perdure.cli.commands.explain", "Why a process is not running, or who runs it."),
    "doctor": ("perdure.cli.commands.doctor", "Check the database and what lives on it."),
    "migrate": ("perdure.cli.commands.migrate", "Make a PostgreSQL schema, or bring it forward."),
    "check": ("perdure.cli.commands.check", "Read the code of processes for what a replay would not forgive."),
    "help": ("perdure.cli.commands.help", "Help on a command, or on exit codes."),
}
"""Name to module (loaded only when the command is used) and one line of help."""

OTHER_NAMES = {
    "ps": "ls", "list": "ls", "why": "explain", "tail": "events", "log": "events", "logs": "events", "exec": "run",
    "serve": "worker", "status": "show", "get": "show", "kill": "cancel", "stop": "cancel", "lint": "check",
    "verify": "doctor", "result": "wait", "await": "wait", "submit": "start", "history": "journal",
    "steps": "journal",
}  # fmt: skip
"""What people type who come from elsewhere."""


class ReaderGone(Exception):
    """Whoever read our stdout has seen enough."""


class Cli(click.Group):
    """A group whose commands are imported when they are used, and whose errors end in the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            meant = OTHER_NAMES.get(args[0]) or next(iter(difflib.get_close_matches(args[0], COMMANDS)), None)
            hint = f" Did you mean `perdure {meant}`?" if meant else " `perdure --help` lists them."
            raise click.UsageError(f"there is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write_dl([("perdure demo", "watch it work"), ("perdure ls -a", "see what it did")])
        write_exit_codes(formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:  # said differently, as click would make a plain 1 of it
            raise ReaderGone from error
        return code

    def main(  # type: ignore[override]  # always standalone: it ends the program itself
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, prog_name or "perdure", **extra)
        except BaseException as error:
            code = _say_error(error, "--json" in arguments)
        sys.exit(int(code or 0))


def write_exit_codes(formatter: click.HelpFormatter) -> None:
    with formatter.section("Exit codes"):
        formatter.write_dl(MEANINGS)


def _say_error(error: BaseException, as_json: bool) -> int:
    """Tell stderr what went wrong and what to do; the exit code. A traceback only with PERDURE_DEBUG=1."""
    if os.environ.get("PERDURE_DEBUG") == "1":
        traceback.print_exception(error)
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.ClickException():
            code, text, help = error.exit_code, error.format_message(), ""
            if isinstance(error, click.UsageError) and error.ctx is not None:
                help = f"`{error.ctx.command_path} --help` shows how."
        case click.Abort() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case Signalled(number=number):
            return 128 + number
        case ReaderGone():
            with suppress(OSError):  # what is still buffered goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case PerdureError():
            code, text, help = int(of_error(error)), str(error), _help(error)
            if isinstance(error, StoreError):
                text, help = f"{error.store}: {error.fields['problem']}", error.fields["remedy"]
        case _:
            code, text = int(ExitCode.UNEXPECTED), f"{type(error).__name__}: {error}"
            help = "PERDURE_DEBUG=1 shows where. If this is not your own code, please report it."
    if as_json:
        _say_json(code, type(error).__name__, text, error.fields if isinstance(error, PerdureError) else {}, help)
    else:
        print(f"error: {safe(text)}", file=sys.stderr)
        if help:
            print(f"help:  {safe(help)}", file=sys.stderr)
    return code


def _help(error: PerdureError) -> str:
    if isinstance(error, UnknownProcess):
        return "`perdure ls -a` lists what is there; --db or PERDURE_URL chooses the database."
    return ""


def _say_json(code: int, kind: str, message: str, fields: dict[str, Any], help: str = "") -> None:
    facts = {name: value for name, value in fields.items() if isinstance(value, str | int | bool | tuple | None)}
    document = {
        "schema": "perdure.error/1", "error": kind, "message": message, "help": help, "exit_code": int(code), **facts,
    }  # fmt: skip
    print(json_text(document), file=sys.stderr)


@click.group(
    cls=Cli,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="perdure", message="%(prog)s %(version)s")
@click.option("--db", metavar="URL", help=f"Database. [env: {URL_VARIABLE}; default: {DEFAULT_URL}]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def cli(ctx: click.Context, db: str | None, as_json: bool) -> None:
    """Durable background processes: start them, run them, look at them.

    A process is a row in a database; whatever happens to the programs that run it, it goes on.
    Wherever an ID is asked for, a unique beginning of it (4 characters or more) will do.
    """
    ctx.obj = {"db": db, "as_json": as_json}


def main() -> None:
    """What the `perdure` script runs."""
    cli()
