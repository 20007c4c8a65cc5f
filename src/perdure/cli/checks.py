"""What `perdure doctor` checks of an SQLite database, each check by name; none of them changes anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from perdure.cli.doctoring.check import Check
from perdure.cli.doctoring.work import check_owner, check_runs, check_statuses
from perdure.cli.text import counted, duration, moment, size
from perdure.clock import Clock
from perdure.errors import StoreError
from perdure.stores.owners import OwnerReport
from perdure.stores.sqlite.connection import OLDEST_SQLITE, WAL_LIMIT_BYTES
from perdure.stores.sqlite.filesystem import unsafe_filesystem
from perdure.stores.sqlite.inspection import Inspection

__all__ = ["Check", "check_store"]

SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
CLOCK_TOLERANCE_MS = 1_000


def check_store(path: Path, clock: Clock) -> Iterator[Check]:
    """All checks in order. One that shows the store to be unusable is the last."""
    yield from _file(path)
    yield _filesystem(path)
    yield _sqlite()
    try:
        inspection = Inspection.open(path)
    except StoreError as error:
        yield Check("schema", "fail", str(error.fields["problem"]), str(error.fields["remedy"]), error)
        return
    try:
        yield _schema(inspection)
        yield _journal(inspection)
        yield _wal(inspection)
        yield _clock(inspection, clock)
        owners = inspection.owners(clock.now().boot_id, one_kernel=unsafe_filesystem(path) is None)
        yield _sockets(inspection, owners)
        yield from _owners(owners)
        yield from _runs(inspection, owners, clock)
        yield check_statuses(inspection.counts(), inspection.unknown_statuses())
    except StoreError as error:
        yield Check("reading", "fail", str(error.fields["problem"]), str(error.fields["remedy"]), error)
    finally:
        inspection.close()


def _file(path: Path) -> Iterator[Check]:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        yield Check("file", "fail", f"{path} is not a regular file", "Choose another path.")
        return
    yield Check("file", "ok", f"{path.resolve()}, {size(found.st_size)}")
    mode = stat.S_IMODE(found.st_mode)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent.resolve(), os.W_OK):
        yield Check(
            "permissions", "fail", f"mode {mode:04o}, owner uid {found.st_uid}: you can't write it or its folder",
            "Run as its owner, or change the permissions of the file and its folder.",
        )  # fmt: skip
    elif mode & 0o077:
        yield Check(
            "permissions", "warn", f"mode {mode:04o}: others on this machine can get at it", f"chmod 600 {path}"
        )
    else:
        yield Check("permissions", "ok", f"mode {mode:04o}, yours to read and write")


def _filesystem(path: Path) -> Check:
    kind = unsafe_filesystem(path)
    if kind is None:
        return Check("filesystem", "ok", "local: its locks can be trusted")
    return Check("filesystem", "fail", f"{kind}: its locks can't be trusted", "Move the database to a local disk.")


def _sqlite() -> Check:
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        return Check("sqlite", "fail", f"SQLite {version} can corrupt a WAL file", f"Install an apsw with {needed}.")
    return Check("sqlite", "ok", f"SQLite {version} (apsw {apsw.apsw_version()})")


def _schema(inspection: Inspection) -> Check:
    detail = f"schema {inspection.schema}, this version's is {inspection.newest_schema}"
    if inspection.schema < inspection.newest_schema:
        return Check("schema", "warn", detail, "The next program that opens it for work brings it forward.")
    return Check("schema", "ok", detail)


def _journal(inspection: Inspection) -> Check:
    mode, level = inspection.pragma("journal_mode"), SYNCHRONOUS.get(inspection.synchronous(), "?")
    good = mode == "wal" and level in ("FULL", "EXTRA")
    fix = "" if good else "Some other program has changed the file; Perdure needs WAL and FULL."
    return Check("journal", "ok" if good else "fail", f"journal mode {mode}, synchronous {level}", fix)


def _wal(inspection: Inspection) -> Check:
    found = inspection.wal_bytes()
    if found > 2 * WAL_LIMIT_BYTES:
        fix = "A long read keeps it from being folded into the file: look for a program that holds one open."
        return Check("wal", "warn", f"the WAL has {size(found)}, its usual bound is {size(WAL_LIMIT_BYTES)}", fix)
    return Check("wal", "ok", f"the WAL has {size(found)}")


def _clock(inspection: Inspection, clock: Clock) -> Check:
    now = clock.now()
    newest = inspection.newest_write_at_ms()
    if now.boot_id == "unknown-boot":
        return Check("clock", "warn", "this platform tells no boot id", "Leases of a former boot only end by expiry.")
    if newest is not None and newest > now.wall_ms + CLOCK_TOLERANCE_MS:
        ahead = duration(newest - now.wall_ms)
        return Check(
            "clock", "fail", f"the newest write ({moment(newest)}) lies {ahead} in the future",
            "The wall clock was set back: due times and deadlines come late. Correct the clock.",
        )  # fmt: skip
    step = max(inspection.clock_steps_ms(now), key=abs, default=0)
    if abs(step) > CLOCK_TOLERANCE_MS:
        detail = f"the wall clock was stepped by {step / 1000:+.1f} s since a standing lease was written"
        return Check("clock", "warn", detail, "Leases don't mind (they use boot time); due times and deadlines do.")
    return Check("clock", "ok", f"{moment(now.wall_ms)}, up {duration(now.boot_ms)}")


def _sockets(inspection: Inspection, owners: Sequence[OwnerReport]) -> Check:
    live, stale = inspection.sockets()
    alive = sum(owner.state == "alive" for owner in owners)
    detail = f"{counted(live, 'wake socket')} bound" + (f", {stale} left over from dead programs" if stale else "")
    if alive and not live:
        fix = "Commits of other programs show after up to 1 s. Check that the .owners folder can hold sockets."
        return Check("wake", "warn", f"{detail}, though {counted(alive, 'owner')} live", fix)
    return Check("wake", "ok", detail)


def _owners(owners: Sequence[OwnerReport]) -> Iterator[Check]:
    past = [owner for owner in owners if owner.state == "dead" and not owner.leases]
    if past:
        yield Check("owners", "ok", f"{counted(len(past), 'dead owner holds', 'dead owners hold')} nothing any more")
    if not owners:
        yield Check("owners", "ok", "no worker is enrolled")
    for owner in owners:
        if owner not in past:
            waits = owner.state == "unproven" and owner.leases > 0
            yield check_owner(owner, "Its runs are taken over when their leases lapse." if waits else "")


def _runs(inspection: Inspection, owners: Sequence[OwnerReport], clock: Clock) -> Iterator[Check]:
    dead = {owner.incarnation for owner in owners if owner.state == "dead"}
    return check_runs(inspection.unended(dead), clock.now())
