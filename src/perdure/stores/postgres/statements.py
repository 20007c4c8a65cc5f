"""Our SQL as the driver takes it: the chosen schema for `perdure.`, and numbered parameters for named ones."""

from __future__ import annotations

import re
from typing import Any

from perdure.stores.postgres.url import quoted
from perdure.stores.sql_files import read_migrations, read_statements

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")
_OUR_SCHEMA = re.compile(r"\bperdure\.(?=[a-z_])")


class Statement:
    """One statement; `values` puts the parameters that it names in their order."""

    def __init__(self, sql: str) -> None:
        self.names: list[str] = []
        self.text = _PARAMETER.sub(self._number, sql)

    def _number(self, match: re.Match[str]) -> str:
        if match[1] not in self.names:
            self.names.append(match[1])
        return f"${self.names.index(match[1]) + 1}"

    def values(self, given: dict[str, Any]) -> list[Any]:
        return [given[name] for name in self.names]


class Statements:
    """The statements of a file, for one schema."""

    def __init__(self, file_name: str, schema: str) -> None:
        found = read_statements(f"{__package__}.queries", file_name)
        self._statements = {name: Statement(in_schema(sql, schema)) for name, sql in found.items()}

    def __getitem__(self, name: str) -> Statement:
        return self._statements[name]


def in_schema(sql: str, schema: str) -> str:
    """The same SQL, about the schema of that name."""
    return _OUR_SCHEMA.sub(lambda _: f"{quoted(schema)}.", sql)


def migrations(schema: str) -> list[tuple[int, str]]:
    """(number, SQL) of every step of the schema, in order."""
    return [(number, in_schema(sql, schema)) for number, sql in read_migrations(f"{__package__}.migrations")]
