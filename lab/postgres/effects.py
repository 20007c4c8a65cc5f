"""Side effects outside the database: each step's at least once, and again only where a fault met it in flight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from lab.postgres.fences import effect_of
from lab.postgres.history import History, Story
from lab.postgres.lines import StepBegan, StepDone, Struck
from lab.postgres.work import STEPS, made_by
from perdure.model.outcomes import Completed

AFTERMATH_MS = 20_000
"""A fault is felt for so long after it is over: connections that hang are given up late."""


def recorded(story: Story, history: History) -> Iterator[str]:
    """What the log says was done was done, under the fence that it names, with the value that it gives."""
    done = {(line.step, line.fence) for line in story.lines if isinstance(line, StepDone)}
    seen: set[str] = set()
    for sequence, entry in story.steps_recorded():
        effect = effect_of(entry)
        if entry.key in seen:
            yield f"step {entry.key} is recorded twice, also as event {sequence}"
        seen.add(entry.key)
        if (entry.key, effect.fence) not in done:
            yield f"step {entry.key} is recorded as done under fence {effect.fence}, and was not done there"
        if effect.value != made_by(story.work.n, entry.key):
            yield f"step {entry.key} is recorded with {effect.value}, not with {made_by(story.work.n, entry.key)}"
    if isinstance(story.record.outcome, Completed):
        for step in STEPS[story.kind]:
            if step not in seen:
                yield f"has completed without step {step}"


def repeated(story: Story, history: History) -> Iterator[str]:
    """A finished step is not begun again; an unfinished one only in a later run, and only if a fault lay between."""
    finished = {entry.key: effect_of(entry).fence for _, entry in story.steps_recorded()}
    begun: dict[str, list[StepBegan]] = defaultdict(list)
    for line in story.lines:
        if isinstance(line, StepBegan):
            begun[line.step].append(line)
    for step, lines in begun.items():
        for line in lines:
            if step in finished and line.fence > finished[step]:
                yield f"step {step} was finished under fence {finished[step]} and begun again under {line.fence}"
        for before, line in pairwise(lines):
            if before.fence == line.fence:
                yield f"step {step} was begun twice under fence {line.fence}"
            elif not _struck_between(before, line, history):
                yield f"step {step} was begun at {before.boot_ms} and at {line.boot_ms}, and nothing had struck"


def _struck_between(before: StepBegan, line: StepBegan, history: History) -> bool:
    slot = history.slots.get(before.incarnation)
    return any(
        struck.slot in (None, slot)
        and struck.began_ms <= line.boot_ms
        and struck.boot_ms + AFTERMATH_MS >= before.boot_ms
        for struck in history.of(Struck)
    )
