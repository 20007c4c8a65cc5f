"""Which workers are in reach of a row, and what is known of what they can run: for whoever asks why nobody runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from perdure.model.leases import Enrolment
from perdure.model.registration import Definition

SHOWN = 5


class Reach(msgspec.Struct, frozen=True):
    """The workers that may run rows of a store. Who can't be proved dead is among them, alive or not."""

    workers: tuple[Enrolment, ...] = ()

    @property
    def definitions(self) -> frozenset[Definition]:
        """What some worker has said it can run."""
        return frozenset(definition for worker in self.workers for definition in worker.definitions or ())

    @property
    def silent(self) -> int:
        """How many have not said what they can run."""
        return sum(worker.definitions is None for worker in self.workers)

    def who_knows(self, definition: Definition) -> list[str]:
        """The names of those that have said they can run it."""
        return [worker.owner.name for worker in self.workers if definition in (worker.definitions or ())]

    def surely_lacks(self, definition: Definition) -> bool:
        """Whether there are workers, and each has said that it can't run this."""
        return bool(self.workers) and not self.silent and definition not in self.definitions


def told(definition: Definition, reach: Reach) -> tuple[str, ...]:
    """What the workers in reach make of a definition, as facts in sentences."""
    if not reach.workers:
        return (f"it waits for a worker that knows {definition}, and none is enrolled",)
    able = reach.who_knows(definition)
    if able:
        return (f"{definition} is known to {_listed(able)}",)
    others = _what_is_known_instead(definition, reach.definitions)
    if reach.silent:
        silent = f"{reach.silent} of {len(reach.workers)} enrolled workers did not say what they can run"
        return (f"it waits for a worker that knows {definition}; {silent}", *others)
    return (f"it waits for a worker that knows {definition}, and no enrolled worker does", *others)


def _what_is_known_instead(wanted: Definition, known: Iterable[Definition]) -> tuple[str, ...]:
    known = sorted(known)
    versions = [d.version for d in known if (d.engine, d.name) == (wanted.engine, wanted.name)]
    if versions:
        place = " is newer" if wanted.version > versions[-1] else " is older" if wanted.version < versions[0] else ""
        listed = f"of {wanted.name} they know version {_listed([str(version) for version in versions])}"
        return (f"{listed}: version {wanted.version}{place or ' is none of them'}",)
    engines = sorted({d.engine for d in known})
    if known and wanted.engine not in engines:
        return (f"they run {_listed(engines)}, none the engine {wanted.engine}",)
    names = sorted({d.name for d in known if d.engine == wanted.engine})
    return (f"of {wanted.engine} they know {_listed(names)}",) if names else ("they know no definition at all",)


def advice(wanted: Definition, reach: Reach) -> str:
    """What would get somebody to run it."""
    versions = [d.version for d in reach.definitions if (d.engine, d.name) == (wanted.engine, wanted.name)]
    if versions and wanted.version < min(versions):
        return f"start a worker that still has version {wanted.version} of {wanted.name}"
    if versions:
        return f"start a worker that has version {wanted.version} of {wanted.name}"
    if reach.definitions and wanted.engine not in {d.engine for d in reach.definitions}:
        return f"start a worker with the engine {wanted.engine}"
    return f"start a worker that has {wanted}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
