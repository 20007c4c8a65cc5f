"""How long `import perdure` takes, beside the import of what any such library needs."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import Plan, Target, emit, median, ratio, timed

RATIO = Target("at most", 3.0)
RUNS_PER_REP = 7

BARE = "pass"
RAW = "import asyncio, sqlite3"
AS_IT_IS = "import perdure"
WITHOUT_TOOLS = "import sys; sys.modules['typing_extensions'] = None; import perdure"
"""As a program meets it that has installed nothing else: msgspec loads typing_extensions where it finds it, and the
development tools bring it along."""


def _wall_ms(code: str) -> float:
    """Milliseconds of a fresh interpreter that runs `code`."""
    return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True)) * 1e3


def measure(plan: Plan) -> None:
    programs = (BARE, RAW, AS_IT_IS, WITHOUT_TOOLS)
    for code in programs:  # the byte code is compiled and in the page cache from here on
        _wall_ms(code)
    found: dict[str, list[float]] = {code: [] for code in programs}
    for _ in range(plan.reps):
        turns = [{code: _wall_ms(code) for code in programs} for _ in range(RUNS_PER_REP)]
        bare = median([turn[BARE] for turn in turns])
        for code in programs[1:]:
            found[code].append(median([turn[code] for turn in turns]) - bare)
    emit("raw.import.asyncio_sqlite3", found[RAW], "ms", n=RUNS_PER_REP)
    for name, code in (("import.perdure", AS_IT_IS), ("import.perdure.without_typing_extensions", WITHOUT_TOOLS)):
        emit(name, found[code], "ms", n=RUNS_PER_REP, **ratio(found[code], found[RAW], RATIO))
