"""Looking at a database as doctor does, and what was found there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from perdure.cli.checks import Check
from perdure.cli.doctoring.limits import Limits
from perdure.cli.doctoring.postgres import check_store
from perdure.clock import SystemClock
from perdure.ids import SystemIds
from tests.postgres.server import server_url
from tests.postgres.worlds import World

USUAL = Limits()


async def looked_at(w: World | str, limits: Limits = USUAL) -> list[Check]:
    url = w if isinstance(w, str) else f"{server_url()}?schema={w.schema}"
    return [check async for check in check_store(url, SystemClock(), SystemIds(), limits)]


def named(found: Sequence[Check], name: str) -> Check:
    (check,) = [check for check in found if check.name == name]
    return check


def troubles(found: Sequence[Check]) -> dict[str, str]:
    return {check.name: check.state for check in found if check.state != "ok"}


def doctor(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("perdure")), "doctor", *arguments], capture_output=True, text=True,
        timeout=60, env={**os.environ, "PERDURE_URL": url},
    )  # fmt: skip
