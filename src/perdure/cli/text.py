"""Text for people: stored strings made safe for a terminal, durations, moments, sizes."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that can move the cursor, turn text around or hide it: control, format, surrogates, breaks."""

_ASCII_PRINTABLE = re.compile(r"[ -~]*")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str) -> str:
    """The text on one line, with everything that a terminal would act on written out (ESC becomes \\x1b)."""
    if _ASCII_PRINTABLE.fullmatch(text):
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in UNSAFE else c for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON for stdout: readable, and safe for a terminal, as what `safe` escapes is escaped the JSON way."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if _ASCII_PRINTABLE.fullmatch(text):
        return text
    return "".join(c if c == "\n" or unicodedata.category(c) not in UNSAFE else _json_escaped(c) for c in text)


def _json_escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def cut(text: str, width: int) -> str:
    """At most `width` characters, an ellipsis where something is missing."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def duration(milliseconds: float) -> str:
    """A duration in its largest fitting unit: 340ms, 12.5s, 3m20s, 4h05m, 6d."""
    seconds = max(0.0, milliseconds) / 1000
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    if seconds < 3_600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    if seconds < 48 * 3_600:
        return f"{int(seconds // 3_600)}h{int(seconds % 3_600 // 60):02d}m"
    return f"{int(seconds // 86_400)}d"


def moment(at_ms: int | None) -> str:
    """A moment in UTC, ISO 8601, to the millisecond; what a calendar can't hold is shown as the number it is."""
    if at_ms is None:
        return ""
    try:
        found = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"
    return found.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """1 folder, 2,000 folders."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
