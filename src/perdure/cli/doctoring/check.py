"""One finding of `perdure doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.errors import StoreError


@dataclass(frozen=True)
class Check:
    """`fix` says what to do about it; `error` is set when the store can't be used at all."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""
    error: StoreError | None = None
