"""Loads the named statements of the .sql files in this folder."""

from __future__ import annotations

from importlib.resources import files


def load_queries(file_name: str) -> dict[str, str]:
    """The statements of one file, by the name in the `-- name:` line above each."""
    text = files(__package__).joinpath(file_name).read_text("utf-8")
    statements: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
        statements[name.strip()] = "\n".join(lines).strip().removesuffix(";")
    return statements
