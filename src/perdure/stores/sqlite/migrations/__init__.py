"""The numbered steps of the schema, forward only."""

from __future__ import annotations

from perdure.stores.sql_files import read_migrations


def migrations() -> list[tuple[int, str]]:
    """(number, SQL) of every step, in order; numbers are 1, 2, 3 …"""
    return read_migrations(__package__)
