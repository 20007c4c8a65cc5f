"""`python -m lab kills | durable | fairness | latency | power | postgres | holder`: proof and figures in JSON.

The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lab.durable.run import FULL, run_after_every_write, run_at_each_commit_fresh, run_at_growing_commits
from lab.fairness import run_fairness
from lab.holder import run_holder
from lab.kills.run import LEAST_HITS, KillLab
from lab.latency import run_latency
from lab.postgres.run import PostgresLab
from lab.postgres.screen import run_shown, tell_breaches
from lab.power import run_power


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    labs = parser.add_subparsers(dest="lab", required=True)
    kills = labs.add_parser("kills", help="workers killed with SIGKILL at named moments and at random times")
    kills.add_argument("--rounds", type=int, default=200)
    kills.add_argument("--workers", type=int, default=2)
    kills.add_argument("--seconds", type=float, default=170.0, help="start no further round after so long")
    kills.add_argument("--batch", type=int, default=6, help="processes started per worker and round")
    kills.add_argument("--seed", type=int, default=1)
    kills.add_argument("--least-hits", type=int, default=LEAST_HITS, help="how often each moment must be hit")
    kills.set_defaults(run=_kills)
    durable = labs.add_parser("durable", help="one function of 30 steps, killed after everything it has written")
    durable.set_defaults(run=_durable)
    fairness = labs.add_parser("fairness", help="saturating programs on one file: shares, and renewals in time")
    fairness.add_argument("--seconds", type=float, default=60.0)
    fairness.add_argument("--programs", type=int, default=3)
    fairness.set_defaults(run=_fairness)
    latency = labs.add_parser("latency", help="a start in one program, its result from a worker in another; idling")
    latency.add_argument("--rounds", type=int, default=200)
    latency.add_argument("--idle-seconds", type=float, default=10.0)
    latency.set_defaults(run=_latency)
    power = labs.add_parser("power", help="images of the disk after power cuts: is what was acknowledged there?")
    power.add_argument("--images", type=int, default=5_000)
    power.add_argument("--seed", type=int, default=1)
    power.set_defaults(run=_power)
    postgres = labs.add_parser("postgres", help="a real server, its ways and its workers struck while work goes on")
    postgres.add_argument("--seconds", type=float, default=600.0, help="of load and faults; checks come after")
    postgres.add_argument("--seed", type=int, default=1)
    postgres.add_argument("--rate", type=float, default=10.0, help="processes started per second")
    postgres.set_defaults(run=_postgres)
    holder = labs.add_parser("holder", help="a caller holds a transaction with a start and a signal, under load")
    holder.add_argument(
        "--seconds", type=float, default=60.0, help="of each part: with no transaction open, an idle one, the holder"
    )
    holder.set_defaults(run=_holder)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="perdure-lab-") as folder:
        return int(options.run(options, Path(folder)))


def _kills(options: argparse.Namespace, folder: Path) -> int:
    lab = KillLab(folder, seed=options.seed, workers=options.workers, batch=options.batch, say=_say)
    report = lab.run(options.rounds, options.seconds, options.least_hits)
    _print(report)
    if not report.breaches:
        return 0
    _keep(folder, "\n".join(report.breaches[:50]))
    return 1


def _durable(options: argparse.Namespace, folder: Path) -> int:
    breaches: list[str] = []
    for name, series in (
        ("after every write", run_after_every_write),
        ("at growing commits", run_at_growing_commits),
        ("at each commit, on a new file", run_at_each_commit_fresh),
    ):
        _say(name)
        report = series(folder / series.__name__, FULL)
        _print(report)
        breaches += report.breaches
    return 1 if breaches else 0


def _fairness(options: argparse.Namespace, folder: Path) -> int:
    report = run_fairness(folder, programs=options.programs, seconds=options.seconds)
    _print(report)
    return 1 if report.breaches else 0


def _latency(options: argparse.Namespace, folder: Path) -> int:
    report = run_latency(folder, rounds=options.rounds, idle_seconds=options.idle_seconds)
    _print(report)
    return 1 if report.breaches else 0


def _power(options: argparse.Namespace, folder: Path) -> int:
    report = run_power(folder, count=options.images, seed=options.seed)
    _print(report)
    return 1 if report.lost or report.broken else 0


def _postgres(options: argparse.Namespace, folder: Path) -> int:
    lab = PostgresLab(folder, seed=options.seed, rate=options.rate)
    report = run_shown(lab, options.seconds)
    _print(report)
    if report.breaches:
        _keep(folder, tell_breaches(lab))
    return 1 if report.breaches else 0


def _keep(folder: Path, story: str) -> None:
    """Keep the files of a run that broke a promise, and say where they are."""
    kept = Path(tempfile.mkdtemp(prefix="perdure-lab-failed-"))
    folder.rename(kept / "run")
    folder.mkdir()
    (kept / "story.txt").write_text(story)
    print(f"{story}\nPromises were broken; the files and this story are in {kept}", file=sys.stderr)


def _holder(options: argparse.Namespace, folder: Path) -> int:
    report = run_holder(options.seconds)
    _print(report)
    return 1 if report.breaches else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _print(report: msgspec.Struct) -> None:
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


if __name__ == "__main__":
    sys.exit(main())
