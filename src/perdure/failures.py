"""Exceptions as data: whatever their text contains, they can be recorded."""

from __future__ import annotations

import traceback

from perdure.canonical import sanitize
from perdure.model.outcomes import ErrorDetail

TRACEBACK_CHARS = 16_000
MESSAGE_CHARS = 4_000
CODE_CHARS = 200


def error_detail(error: BaseException, attempt: int) -> ErrorDetail:
    """An exception as data. Whatever its text contains, it can be recorded."""
    message, changed = sanitize(_text_of(error), max_chars=MESSAGE_CHARS)
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    trace, trace_changed = sanitize(trace, max_chars=TRACEBACK_CHARS)
    code = getattr(error, "code", None)
    return ErrorDetail(
        type(error).__name__,
        message,
        code=sanitize(code, max_chars=CODE_CHARS)[0] if isinstance(code, str) else None,
        traceback=trace,
        retryable=bool(getattr(error, "retryable", True)),
        attempt=attempt,
        sanitised=changed or trace_changed,
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # an error whose own text can't be made must still be recorded
        return f"(its message can't be shown: {type(unprintable).__name__})"
