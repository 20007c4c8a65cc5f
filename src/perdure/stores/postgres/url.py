"""A PostgreSQL URL: whom to connect to, what of it is ours, and a name for it that has no secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from perdure.errors import InvalidOption, StoreUnavailable

DEFAULT_SCHEMA = "perdure"
SCHEMES = ("postgresql://", "postgres://")
URL_FORM = "postgresql://user:password@host:port/database?schema=perdure"


@dataclass(frozen=True)
class Target:
    """Where a store is. `dsn` has the password and goes to the driver alone; `name` is for people."""

    dsn: str
    name: str
    schema: str
    prepared: bool | None
    """Whether statements may stay prepared on the server; None: find out whether a pooler is in between."""
    relaxed: bool
    """Whether a server that may lose acknowledged commits is accepted."""

    def __repr__(self) -> str:
        return f"Target({self.name})"


def is_postgres(url: str) -> bool:
    return url.startswith(SCHEMES)


def check_driver(url: str) -> None:
    """Before anything that needs it is imported: raise StoreUnavailable if the driver is not installed."""
    if find_spec("asyncpg") is None:
        raise StoreUnavailable(
            without_password(url), "the driver for PostgreSQL is not installed", "pip install 'perdure[postgres]'"
        )


def without_password(url: str) -> str:
    """The URL for messages and logs: without a password, wherever it stands, and whatever else is wrong with it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.sub(r":[^@]*@", ":…@", url)
    rest, question, query = rest.partition("?")
    credentials, at, place = rest.rpartition("@")
    if not at:  # `user:password` without a host looks like a port
        place = re.sub(r":(?!\d+(/|,|\Z))[^/]*", ":…", place)
    kept = [pair for pair in query.split("&") if "pass" not in pair.partition("=")[0].lower()]
    return f"{scheme}://{credentials.partition(':')[0]}{at}{place}{question}{'&'.join(kept)}"


def parse_url(url: str, schema: str | None = None) -> Target:
    """What the URL says. Raises InvalidOption, without repeating a password.

    Of its options these are ours: `schema`, `prepared` (yes or no; left out: found out) and `durability=relaxed`.
    The others are the driver's (https://www.postgresql.org/docs/current/libpq-connect.html).
    """
    if not is_postgres(url):
        raise InvalidOption("url", without_password(url), URL_FORM)
    try:
        parts = urlsplit(url)
        options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        if "@" in parts.path or parts.port == 0:
            raise ValueError("a / or @ of the password must stand as %2F or %40")
    except ValueError:
        raise InvalidOption("url", without_password(url), URL_FORM) from None
    named = options.pop("schema", None)
    chosen = schema or named or DEFAULT_SCHEMA
    if not 0 < len(chosen.encode()) <= 63 or "\0" in chosen or chosen.startswith("pg_"):
        raise InvalidOption("schema", chosen, "1 to 63 bytes, not beginning with pg_")
    prepared = _choice(options.pop("prepared", ""), "prepared", {"": None, "yes": True, "no": False})
    durability = options.pop("durability", "")
    relaxed = _choice(durability, "durability", {"": False, "full": False, "relaxed": True})
    dsn = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(options)))
    place = parts.hostname or unquote(str(options.get("host", "")))
    if parts.port is not None:
        place = f"{place}:{parts.port}"
    user = f"{parts.username}@" if parts.username else ""
    shown = "" if chosen == DEFAULT_SCHEMA else f"?schema={quote(chosen)}"
    return Target(dsn, f"postgresql://{user}{place}{parts.path}{shown}", chosen, prepared, bool(relaxed))


def _choice(given: str, option: str, choices: dict[str, Any]) -> Any:
    if given not in choices:
        raise InvalidOption(option, given, " or ".join(name for name in choices if name))
    return choices[given]


def quoted(name: str) -> str:
    """An SQL identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'
