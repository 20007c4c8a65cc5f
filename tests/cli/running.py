"""Words that the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

from click.testing import Result

PROGRAM = "from perdure.cli.main import main; main()"

Perdure = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


def until(true: Callable[[], bool], within_s: float = 20) -> None:
    limit = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)


def status(perdure: Perdure, id: str, db: str = "shop.db") -> str:
    return str(json.loads(perdure("show", id, "--json", "--db", db).stdout)["status"])


def ended(process: subprocess.Popen[str], within_s: float = 30) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err
