"""`python -m bench sqlite|postgres [SECTION ...] [--reps 3] [--n 10000] [--quick]`: a JSON line per figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import sqlite
from bench.measure import Plan, describe
from bench.postgres import figures

FULL = Plan(reps=3, n=10_000)
QUICK = Plan(reps=1, n=1_000)
SECTIONS = {"sqlite": list(sqlite.SECTIONS), "postgres": list(figures.SECTIONS)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Perdure beside its raw limits.")
    parser.add_argument("store", choices=sorted(SECTIONS))
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {_names()}; all by default")
    parser.add_argument("--reps", type=int, help=f"repetitions of each figure (default {FULL.reps})")
    parser.add_argument("--n", type=int, help=f"processes per repetition (default {FULL.n:,})")
    parser.add_argument("--dir", type=Path, help="where the files lie (default: the temporary folder)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PROGRAM",
        help="measure a peer beside it. sqlite: dbos, by an interpreter that has it. postgres: any, by a command that "
        "prints figures (see bench/postgres/peers.py)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a rough look, in less than a minute")
    given = parser.parse_args(arguments)
    known = SECTIONS[given.store]
    if unknown := [section for section in given.sections if section not in known]:
        parser.error(f"unknown section {unknown[0]!r}; {given.store} has {', '.join(known)}")
    if (given.reps is not None and given.reps < 1) or (given.n is not None and given.n < 100):
        parser.error("--reps is at least 1, and --n at least 100")
    plan = QUICK if given.quick else FULL
    reps, n = given.reps or plan.reps, given.n or plan.n
    peers = {name: program for name, _, program in (peer.partition("=") for peer in given.peer)}
    print(describe(), file=sys.stderr)
    if given.store == "postgres":
        figures.measure(Plan(reps, n, given.dir, commands=peers), given.sections or list(known))
        return 0
    if unknown_peers := sorted(peers.keys() - {"dbos"}):
        parser.error(f"unknown peer {unknown_peers[0]!r}; there is dbos: --peer dbos=PYTHON")
    plan = Plan(reps, n, given.dir, {name: Path(program) for name, program in peers.items()})
    for section in given.sections or known:
        sqlite.SECTIONS[section](plan)
    return 0


def _names() -> str:
    return "; ".join(f"{store}: {', '.join(sections)}" for store, sections in SECTIONS.items())


if __name__ == "__main__":
    sys.exit(main())
