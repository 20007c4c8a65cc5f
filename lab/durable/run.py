"""Runs the programs of the durable lab one after the other, and checks what the ledger says of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import apsw
import msgspec

from lab.durable.work import RunBegan, Size, StepDone, expected

PROJECT = Path(__file__).parents[2]
FULL = Size(row=9, together=6, branch=6)
LONGEST_S = 60.0


class DurableReport(msgspec.Struct, frozen=True):
    """`run_again`: steps whose bodies ran more than once, and how often. Without `breaches` all promises were kept."""

    steps: int
    programs: int
    kills: int
    seconds: float
    run_again: dict[str, int]
    breaches: tuple[str, ...]


class Series:
    """Programs that go on with one function on one file, each killed where it is told."""

    def __init__(self, folder: Path, size: Size) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database, self._ledger_path, self._size = folder / "work.db", folder / "ledger.jsonl", size
        self.kills = self.programs = 0
        self.result: list[int] | None = None

    def run(self, dies: str) -> bool:
        """One program; whether it has finished the function."""
        arguments = [str(self._database), str(self._ledger_path), msgspec.json.encode(self._size).decode(), dies]
        ended = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "lab.durable.program", *arguments],
            cwd=PROJECT, capture_output=True, text=True, timeout=LONGEST_S, check=False,
        )  # fmt: skip
        self.programs += 1
        if ended.returncode == -signal.SIGKILL:
            self.kills += 1
            return False
        if ended.returncode != 0:
            raise RuntimeError(f"a program has failed:\n{ended.stdout}\n{ended.stderr}")
        self.result = json.loads(ended.stdout)
        return True

    def run_again(self) -> dict[str, int]:
        """The steps whose bodies came to their end more than once."""
        return {step: count for step, count in self._counts().items() if count > 1}

    def _lines(self) -> list[StepDone | RunBegan]:
        text = self._ledger_path.read_bytes()
        return [msgspec.json.decode(line, type=StepDone | RunBegan) for line in text.splitlines()]

    def _counts(self) -> Counter[str]:
        return Counter(line.step for line in self._lines() if isinstance(line, StepDone))

    def breaches(self) -> list[str]:
        """Another result than without kills; a step never run, run when finished, or run twice without a kill."""
        found = []
        if self.result != expected(self._size):
            found.append(f"the result is {self.result}, not {expected(self._size)}")
        if len(self._counts()) != self._size.steps:
            found.append(f"{len(self._counts())} steps were run, not {self._size.steps}: {sorted(self._counts())}")
        began: dict[int, frozenset[str]] = {}
        done: set[tuple[int, str]] = set()
        for line in self._lines():
            if isinstance(line, RunBegan):
                began[line.pid] = frozenset(line.finished)
                continue
            if line.step in began[line.pid]:
                found.append(f"{line.step} was finished, and was run again")
            if (line.pid, line.step) in done:
                found.append(f"{line.step} was run twice by one program")
            done.add((line.pid, line.step))
        return found + self._written_breaches()

    def _written_breaches(self) -> list[str]:
        """Steps in transactions: exactly once, also the one that a kill has met."""
        connection = apsw.Connection(str(self._database), flags=apsw.SQLITE_OPEN_READONLY)
        written = Counter(str(step) for (step,) in connection.execute("SELECT step FROM written"))
        connection.close()
        wanted = Counter(f"t{n}" for n in range(self._size.within))
        return [] if written == wanted else [f"the transactions have written {dict(written)}, not {dict(wanted)}"]


def run_after_every_write(folder: Path, size: Size) -> DurableReport:
    """Kill each program right after its first write into a journal, until one finishes."""
    began_s, series = time.monotonic(), Series(folder, size)
    while not series.run("journal"):
        pass
    return _report([series], size, began_s)


def run_at_growing_commits(folder: Path, size: Size) -> DurableReport:
    """Kill the n-th program at its n-th commit, until one finishes."""
    began_s, series, commit = time.monotonic(), Series(folder, size), 1
    while not series.run(str(commit)):
        commit += 1
    return _report([series], size, began_s)


def run_at_each_commit_fresh(folder: Path, size: Size, every: int = 1) -> DurableReport:
    """For each n a new file: killed once, at the n-th commit, and then finished."""
    began_s, all_series, commit, killed = time.monotonic(), [], 1, True
    while killed:
        series = Series(folder / str(commit), size)
        killed = not series.run(str(commit))
        if killed and not series.run("never"):
            raise AssertionError("a program that was not to die has died")
        all_series.append(series)
        commit += every
    return _report(all_series, size, began_s)


def _report(all_series: list[Series], size: Size, began_s: float) -> DurableReport:
    run_again: Counter[str] = Counter()
    for series in all_series:
        run_again.update(series.run_again())
    return DurableReport(
        steps=size.steps,
        programs=sum(series.programs for series in all_series),
        kills=sum(series.kills for series in all_series),
        seconds=round(time.monotonic() - began_s, 1),
        run_again=dict(run_again),
        breaches=tuple(breach for series in all_series for breach in series.breaches()),
    )
