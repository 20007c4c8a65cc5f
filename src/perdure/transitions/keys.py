"""Names that callers give to what they ask and say: operation ids, replay keys, signal ids, references."""

from __future__ import annotations

from perdure.canonical import is_storable
from perdure.errors import InvalidOption

LONGEST_KEY = 400


def check_key_text(option: str, key: str) -> InvalidOption | None:
    """None if the name can be stored, else the refusal."""
    if 0 < len(key) <= LONGEST_KEY and is_storable(key):
        return None
    return InvalidOption(option, key, f"1 to {LONGEST_KEY} characters, without NUL and lone surrogates")
