"""One kill reaches everything below, also what runs away from it."""

from __future__ import annotations

import subprocess
import sys

from perdure.engines.command.supervisor import descent, entry
from tests.command.programs import RUNS_AWAY

WITHOUT_REST = RUNS_AWAY.replace("time.sleep(0.0005)", "pass")
"""Each descendant lives only as long as its fork takes: nobody who looks for it sees it alive but by chance."""

KILLS_ONCE = f"""
import os, subprocess, sys, time
from {entry.__name__} import PR_SET_CHILD_SUBREAPER, prctl
from {descent.__name__} import kill_all
assert prctl(PR_SET_CHILD_SUBREAPER, 1)
program = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True)
program.stdout.readline()
time.sleep(0.05)
kill_all(os.getpid())
until = time.monotonic() + 20
try:
    while time.monotonic() < until:
        os.waitpid(-1, os.WNOHANG)
        time.sleep(0.0001)
except ChildProcessError:
    print("nothing is left")
"""


def test_one_kill_ends_what_runs_away_by_forking() -> None:
    told = subprocess.run(
        [sys.executable, "-c", KILLS_ONCE, WITHOUT_REST], capture_output=True, text=True, check=True, timeout=90
    )
    assert told.stdout == "nothing is left\n", told.stderr
