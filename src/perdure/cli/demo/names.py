"""File names as text that can be stored, and back. A name on disk is bytes: it may be no text at all."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_to_bytes

_UNSTORABLE = re.compile("[%\x00-\x1f\x7f-\x9f\udc80-\udcff]")
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._+-]+")

SLUG_CHARS = 40


def encode_path(path: bytes) -> str:
    """The path as text, with percent signs, control characters and bytes that are not UTF-8 as %XX."""
    return _UNSTORABLE.sub(_percent, path.decode("utf-8", "surrogateescape"))


def decode_path(text: str) -> bytes:
    """The path that `encode_path` was given."""
    return unquote_to_bytes(text)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def process_id(path: bytes, listing: str, leave_out: tuple[str, ...]) -> str:
    """The id of the process for this folder as it is: other content, another id. Begins with the folder's name."""
    said = "\0".join(("perdure demo 1", encode_path(path), listing, *leave_out))
    name = _NOT_IN_IDS.sub("_", path.rsplit(b"/", 1)[-1].decode("utf-8", "replace")).strip("._+-")[:SLUG_CHARS]
    return f"{name or 'folder'}-{hashlib.sha256(said.encode()).hexdigest()[:24]}"
