"""`python -m bench sqlite [SECTION ...] [--reps 3] [--n 10000] [--quick]`: one JSON line per figure on stdout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.measure import Plan, describe
from bench.sqlite import SECTIONS

FULL = Plan(reps=3, n=10_000)
QUICK = Plan(reps=1, n=1_000)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Perdure beside its raw limits.")
    parser.add_argument("store", choices=["sqlite"])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--reps", type=int, help=f"repetitions of each figure (default {FULL.reps})")
    parser.add_argument("--n", type=int, help=f"processes per repetition (default {FULL.n:,})")
    parser.add_argument("--dir", type=Path, help="where the files lie (default: the temporary folder)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON",
        help="measure a peer (dbos) beside it, with an interpreter that has it",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a rough look, in less than a minute")
    given = parser.parse_args(arguments)
    unknown = [section for section in given.sections if section not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if (given.reps is not None and given.reps < 1) or (given.n is not None and given.n < 100):
        parser.error("--reps is at least 1, and --n at least 100")
    plan = QUICK if given.quick else FULL
    peers = {name: Path(python) for name, _, python in (peer.partition("=") for peer in given.peer)}
    if unknown_peers := sorted(peers.keys() - {"dbos"}):
        parser.error(f"unknown peer {unknown_peers[0]!r}; there is dbos: --peer dbos=PYTHON")
    plan = Plan(given.reps or plan.reps, given.n or plan.n, given.dir, peers)
    print(describe(), file=sys.stderr)
    for section in given.sections or SECTIONS:
        SECTIONS[section](plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
