"""Statements that stand in .sql files beside a store, by name."""

from __future__ import annotations

from importlib.resources import files


def read_statements(package: str, file_name: str) -> dict[str, str]:
    """The statements of one file, by the name in the `-- name:` line above each; without comments."""
    text = files(package).joinpath(file_name).read_text("utf-8")
    statements: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
        statements[name.strip()] = "\n".join(lines).strip().removesuffix(";")
    return statements


def read_migrations(package: str) -> list[tuple[int, str]]:
    """(number, SQL) of every step in a folder, in order; numbers are 1, 2, 3 …"""
    steps = sorted(
        (int(entry.name[:4]), entry.read_text("utf-8"))
        for entry in files(package).iterdir()
        if entry.name.endswith(".sql")
    )
    assert [number for number, _ in steps] == list(range(1, len(steps) + 1))
    return steps
