"""perdure help"""

from __future__ import annotations

import click

from perdure.cli.exit_codes import MEANINGS
from perdure.cli.main import COMMANDS, write_exit_codes
from perdure.cli.surface import Surface, common


@click.command(
    epilog="""\b
Examples:
  perdure help wait
  perdure help exit-codes"""
)
@click.argument("topic", required=False)
@common
@click.pass_context
def help(ctx: click.Context, surface: Surface, topic: str | None) -> int:
    """Help on a command, or on `exit-codes`."""
    root = ctx.find_root()
    if topic == "exit-codes":
        if surface.json:
            surface.document("exit-codes", codes=[{"code": int(code), "meaning": text} for code, text in MEANINGS])
            return 0
        formatter = click.HelpFormatter(max_width=110)
        write_exit_codes(formatter)
        print(formatter.getvalue(), end="")
        return 0
    command: click.Command = root.command
    if topic is not None:
        assert isinstance(root.command, click.Group)
        found = root.command.get_command(root, topic)
        if found is None:
            raise click.UsageError(f"there is no topic {topic!r}. Topics: {', '.join(COMMANDS)}, exit-codes.")
        command = found
    text = command.get_help(click.Context(command, info_name=topic, parent=root) if topic else root)
    if surface.json:
        surface.document("help", topic=topic, text=text)
    else:
        print(text)
    return 0
