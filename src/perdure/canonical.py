"""The one rule for JSON text that is stored and hashed.

Canonical text is compact UTF-8 JSON: keys sorted by code point, no key twice, integers within signed 64 bits, finite
floats, -0.0 written as 0.0, no NUL, no lone surrogates. Equal values give equal bytes, so the bytes can be hashed and
compared. What can't be written so is refused with its JSON path (`$.a[3].b`), alike for every store. The failure path
must never fail itself: there `sanitize` repairs text instead of refusing it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from math import copysign
from typing import Any, NoReturn

import msgspec

from perdure.errors import InvalidOption, InvalidPayload

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_MAX_LIMIT_DEPTH = 512  # the encoder recurses in C: deeper limits could meet the interpreter's own
_SHOWN_KEY_CHARS = 100

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSTORABLE_TEXT = re.compile("[\0\ud800-\udfff]")
_STRING_OR_NEGATIVE_ZERO = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-0\.0(?![0-9])')
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]', re.DOTALL)

# Where a value stands: (place of its parent, key or index). The outermost value's parent is None.
_Place = tuple[Any, str | int]


class Limits(msgspec.Struct, frozen=True):
    """How large one payload may be: `max_bytes` of canonical text, `max_depth` objects and arrays inside one another.

    A value exactly at a limit passes. Raises InvalidOption for `max_bytes` below 1, `max_depth` outside 1 to 512.
    """

    max_bytes: int = 1_048_576
    max_depth: int = 64

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise InvalidOption("max_bytes", self.max_bytes, "1 or more")
        if not 1 <= self.max_depth <= _MAX_LIMIT_DEPTH:
            raise InvalidOption("max_depth", self.max_depth, f"1 to {_MAX_LIMIT_DEPTH}")


DEFAULT_LIMITS = Limits()
_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(value: object, *, limits: Limits = DEFAULT_LIMITS, root: str = "$") -> bytes:
    """Return the canonical text of a value made of dict, list, tuple, str, int, float, bool and None.

    Other types, subclasses included, are refused: reduce them first. A tuple is written as an array. Raises
    InvalidPayload with the path of an offence, where `root` stands for the value itself. Any depth is safe to pass.

    >>> encode({"b": [1, -0.0], "a": None})
    b'{"a":null,"b":[1,0.0]}'
    """
    if value is None:
        return _within(b"null", limits, root)
    has_negative_zero = not _is_plainly_fine(value) and _check(value, limits, root)
    try:
        text = _ENCODER.encode(value)
    except UnicodeEncodeError:
        _check(value, limits, root, look_into_text=True)
        raise
    if b"\\u0000" in text:  # a NUL, or a string that spells one out after a backslash
        _check(value, limits, root, look_into_text=True)
    if has_negative_zero:
        text = _STRING_OR_NEGATIVE_ZERO.sub(lambda found: b"0.0" if found[0] == b"-0.0" else found[0], text)
    return _within(text, limits, root)


def canonicalize(text: bytes | str, *, limits: Limits = DEFAULT_LIMITS, root: str = "$") -> bytes:
    """Return the canonical text of JSON text received from outside.

    Refuses what `encode` refuses, and keys that stand twice in one object, bad UTF-8 and text that isn't JSON. The
    size limit counts the canonical bytes, so a reader of untrusted input bounds what it receives first. Raises
    InvalidPayload with the path of the offence. Any depth is safe to pass.

    >>> canonicalize('{ "b": 1e2, "a": "\\\\u00e9" }').decode()
    '{"a":"é","b":100.0}'
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"bytes that are not UTF-8 (byte {error.start} of the text)"
            raise InvalidPayload(root, problem, "JSON text in UTF-8") from None
    try:
        value = _PARSER.decode(text)
    except RecursionError:
        _refuse_depth_of_text(text, limits, root)
        raise  # the text is within the limit: the caller's own stack was nearly used up
    except json.JSONDecodeError as error:
        problem = f"text that is not JSON: {error.msg} (line {error.lineno} column {error.colno})"
        raise InvalidPayload(root, problem, "one JSON value") from None
    return encode(value, limits=limits, root=root)


def sanitize(text: str, *, max_chars: int) -> tuple[str, bool]:
    """Return the text made storable, and whether anything was changed. Never raises, whatever the string holds.

    NUL and lone surrogates become U+FFFD. Longer text is cut to `max_chars`, its end a mark that says how many
    characters are missing; the mark counts towards `max_chars`, so sanitising twice changes nothing more.

    >>> sanitize("a\\0b", max_chars=100)
    ('a\ufffdb', True)
    """
    max_chars = max(0, max_chars)
    cut = len(text) > max_chars
    kept = text
    if cut:
        room = max(0, max_chars - len(_cut_mark(len(text))))
        kept = (text[:room] + _cut_mark(len(text) - room))[:max_chars]
    cleaned, replaced = _UNSTORABLE_TEXT.subn("\ufffd", kept)
    return cleaned, cut or replaced > 0


def is_storable(text: str) -> bool:
    """Whether the text can be stored as it is: no NUL, no lone surrogates."""
    return _UNSTORABLE_TEXT.search(text) is None


def content_hash(data: bytes) -> str:
    """The SHA-256 of the bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def child_path(path: str, key: str | int) -> str:
    """The JSON path of a member (str) or an element (int) of the value at `path`; long keys are shown cut."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    shown = key if len(key) <= _SHOWN_KEY_CHARS else key[:_SHOWN_KEY_CHARS] + "…"
    return f"{path}.{shown}" if _PLAIN_KEY.fullmatch(shown) else f"{path}[{json.dumps(shown)}]"


# --- the rules --------------------------------------------------------------------------------------------------


def _is_plainly_fine(value: object) -> bool:
    """Whether a single value needs no walk; what a string holds, see _check."""
    kind = type(value)
    return kind is str or kind is bool or (kind is int and _MIN_INTEGER <= value <= _MAX_INTEGER)  # type: ignore[operator]  # an int


def _check(value: object, limits: Limits, root: str, *, look_into_text: bool = False) -> bool:
    """Refuse what has no canonical text; return whether a -0.0 must be rewritten.

    Level by level, not by recursion: depth, cycles and values shared a thousand times over meet a limit, never the
    interpreter's stack or memory. Strings cost nothing here: the encoder finds the bad ones, and a second walk with
    `look_into_text` says where they are.
    """
    has_negative_zero = False
    level: list[tuple[Any, _Place | None]] = [((value,), None)]
    depth = 0
    bytes_left = limits.max_bytes  # every element takes a byte at least
    while level:
        deeper: list[tuple[Any, _Place | None]] = []
        for container, place in level:
            bytes_left -= len(container)
            if bytes_left < 0:
                _refuse_size(f"more than {limits.max_bytes} bytes", limits, root)
            members: Iterable[tuple[Any, Any]]
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        _refuse(root, place, f"a key of type {type(key).__name__}", "keys that are strings")
                    if look_into_text and _UNSTORABLE_TEXT.search(key):
                        _refuse_text(root, (place, key), key, "a key with")
                members = container.items()
            else:
                members = enumerate(container)
            for key, item in members:
                kind = type(item)
                if kind is str:
                    if look_into_text and _UNSTORABLE_TEXT.search(item):
                        _refuse_text(root, (place, key), item, "a string with")
                elif kind is int:
                    if not _MIN_INTEGER <= item <= _MAX_INTEGER:
                        _refuse(root, (place, key), "an integer beyond 64 bits", "-2^63 to 2^63 - 1, or a string")
                elif item is None or kind is bool:
                    pass
                elif kind is float:
                    if item == 0.0:
                        has_negative_zero = has_negative_zero or copysign(1.0, item) < 0
                    elif item - item != 0.0:
                        _refuse(root, (place, key), f"the number {item!r}", "finite numbers, null or a string")
                elif kind is dict or kind is list or kind is tuple:
                    if depth >= limits.max_depth:
                        _refuse_depth(root, (place, key), limits)
                    deeper.append((item, (place, key)))
                elif kind is _RepeatedKey:
                    _refuse(root, ((place, key), item.key), "a key that stands twice", "each key once")
                else:
                    _refuse(root, (place, key), f"a value of type {_type_name(kind)}", "JSON values")
        level = deeper
        depth += 1
    return has_negative_zero


def _refuse(root: str, place: _Place | None, problem: str, allowed: str) -> NoReturn:
    keys: list[str | int] = []
    while place is not None:
        place, key = place
        keys.append(key)
    path = root
    for key in reversed(keys[:-1]):  # the last one is the index in the tuple around the outermost value
        path = child_path(path, key)
    raise InvalidPayload(path, problem, allowed) from None


def _refuse_text(root: str, place: _Place, text: str, what: str) -> NoReturn:
    offence = "a NUL character" if "\0" in text else "a lone surrogate"
    _refuse(root, place, f"{what} {offence}", "text without NUL and lone surrogates; encode binary content as base64")


def _refuse_depth(root: str, place: _Place, limits: Limits) -> NoReturn:
    _refuse(root, place, f"more than {limits.max_depth} levels", f"{limits.max_depth} levels of objects and arrays")


def _refuse_size(found: str, limits: Limits, root: str) -> NoReturn:
    allowed = f"{limits.max_bytes} bytes of JSON; keep larger content elsewhere and store its address"
    raise InvalidPayload(root, found, allowed)


def _within(text: bytes, limits: Limits, root: str) -> bytes:
    if len(text) > limits.max_bytes:
        _refuse_size(f"{len(text)} bytes", limits, root)
    return text


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _cut_mark(missing: int) -> str:
    return f"… [{missing} characters cut]"


# --- text from outside ------------------------------------------------------------------------------------------


class _RepeatedKey:
    """Stands in the parsed value for an object in which `key` came twice, so that the walk can say where."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    return _RepeatedKey(key)


def _parse_integer(digits: str) -> int:
    """More than 20 characters are beyond 64 bits, whatever they say (JSON has no leading zeros): don't compute them."""
    return int(digits) if len(digits) <= 20 else _MAX_INTEGER + 1


_PARSER = json.JSONDecoder(object_pairs_hook=_parse_object, parse_int=_parse_integer)


def _refuse_depth_of_text(text: str, limits: Limits, root: str) -> None:
    """Find the first place below the depth limit, by its brackets alone."""
    place: _Place | None = (None, 0)
    depth, last_string = 0, '""'
    for found in _STRUCTURE.finditer(text):
        piece = found[0]
        if piece in "[{":
            if depth == limits.max_depth:
                assert place is not None
                _refuse_depth(root, place, limits)
            depth, place = depth + 1, (place, 0 if piece == "[" else "")
        elif place is None or place[0] is None:
            continue
        elif piece in "]}":
            depth, place = depth - 1, place[0]
        elif piece == "," and isinstance(place[1], int):
            place = (place[0], place[1] + 1)
        elif piece == ":":
            place = (place[0], json.loads(last_string, strict=False))
        elif piece[0] == '"':
            last_string = piece
