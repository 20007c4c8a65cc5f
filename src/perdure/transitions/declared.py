"""Checks payloads against the JSON Schemas that a registration declared, and those schemas themselves."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from perdure.errors import InvalidOption, InvalidPayload

ANY_SCHEMA = (b"true", b"{}")


def check_declared(schema: msgspec.Raw, payload: msgspec.Raw) -> InvalidPayload | None:
    """None if the payload is what was declared; else where and how it differs."""
    text = bytes(schema)
    if text in ANY_SCHEMA:
        return None
    error = next(iter(_validator(text).iter_errors(msgspec.json.decode(payload))), None)
    if error is None:
        return None
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return InvalidPayload(path, error.message, "what the declared schema admits")


def check_schema(what: str, schema: msgspec.Raw) -> InvalidOption | None:
    """None if this is a JSON Schema that refers to nothing outside itself."""
    text = bytes(schema)
    if text in ANY_SCHEMA:
        return None
    try:
        _validator(text)
    except ValueError as error:
        problem = str(error).partition("\n")[0]
        return InvalidOption(f"schema of {what}", text.decode(), f"a self-contained JSON Schema ({problem})")
    return None


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs  # loaded when the first declared schema is met: most registrations declare none

    return jsonschema_rs.validator_for(schema.decode(), retriever=_refuse_to_retrieve)


def _refuse_to_retrieve(uri: str) -> Any:
    raise ValueError(f"a schema may not refer to another document: {uri}")
