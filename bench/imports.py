"""How long `import perdure` takes, beside the import of what any such library needs."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import Plan, Target, emit_pair, median, timed

RATIO = Target("at most", 3.0)
RUNS_PER_REP = 7
RAW = "import asyncio, sqlite3"


def _wall_ms(code: str) -> float:
    """Milliseconds of a fresh interpreter that runs `code`."""
    return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True)) * 1e3


def measure(plan: Plan) -> None:
    for code in ("import perdure", RAW, "pass"):  # the byte code is compiled and in the page cache from here on
        _wall_ms(code)
    ours, raw = [], []
    for _ in range(plan.reps):
        turns = [(_wall_ms("pass"), _wall_ms("import perdure"), _wall_ms(RAW)) for _ in range(RUNS_PER_REP)]
        bare = median([one for one, _, _ in turns])
        ours.append(median([one for _, one, _ in turns]) - bare)
        raw.append(median([one for _, _, one in turns]) - bare)
    emit_pair("import.perdure", ours, raw, "ms", n=RUNS_PER_REP, raw_name="raw.import.asyncio_sqlite3", target=RATIO)
