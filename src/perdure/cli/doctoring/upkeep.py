"""What holds up vacuum, who waits, and in what state the tables and their indexes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.cli.doctoring.check import Check
from perdure.cli.doctoring.limits import Limits
from perdure.cli.text import counted, duration, size
from perdure.stores.postgres.findings import (
    Ages,
    IndexReport,
    OpenTransaction,
    PreparedTransaction,
    Slot,
    TableReport,
    WaitingLock,
)
from perdure.stores.postgres.inspection import Difference

ROW_OVERHEAD_BYTES = 28
"""Header and line pointer of a row (https://www.postgresql.org/docs/current/storage-page-layout.html)."""
LAST_AGE = 1_500_000_000
"""Of 2,147 million at which the server takes no more writes."""
WRITTEN_EACH_TIME = {"processes": {"status", "state"}, "leases": {"claimed_at", "expires_at"}}
"""Columns that no index of ours has: one of yours that has one makes every write of a row write every index."""


def check_transactions(found: Sequence[OpenTransaction], sees_all: bool, limits: Limits) -> Iterator[Check]:
    old = [t for t in found if (t.age_ms or 0) >= limits.transaction_ms or t.horizon >= limits.horizon]
    for t in old:
        since = "" if t.statement_ms is None else f", its last statement began {duration(t.statement_ms)} ago"
        age = "for a time that this role may not see" if t.age_ms is None else f"for {duration(t.age_ms)}"
        who = f"pid {t.pid} ({t.role}{f', {t.application}' if t.application else ''})"
        holds = f"; {counted(t.horizon, 'transaction')} began since" if t.horizon else ""
        yield Check(
            "transaction", "warn", f"{who} is in a transaction {age}, {t.state or 'state unknown'}{since}{holds}",
            f"Vacuum can clear away nothing that died meanwhile. End it: SELECT pg_terminate_backend({t.pid})",
        )  # fmt: skip
    if old:
        return
    hidden = sum(t.age_ms is None for t in found)
    ages = [t.age_ms for t in found if t.age_ms is not None]
    said = f"the oldest is open for {duration(max(ages))}" if ages else "none is open"
    if hidden and not sees_all:
        said += f"; of {hidden} more this role may not see the age (GRANT pg_read_all_stats shows it)"
    yield Check("transaction", "ok", said)


def check_prepared(found: Sequence[PreparedTransaction], limits: Limits) -> Iterator[Check]:
    for t in found:
        if t.age_ms >= limits.transaction_ms:
            said = f"{t.gid!r} of {t.role} is prepared and not ended for {duration(t.age_ms)}"
            fix = "It holds its locks, and vacuum, for ever: COMMIT PREPARED or ROLLBACK PREPARED it."
            yield Check("prepared", "warn", said, fix)


def check_slots(found: Sequence[Slot], limits: Limits) -> Iterator[Check]:
    for slot in found:
        if slot.wal_status == "lost":
            fix = f"Its reader can't go on. SELECT pg_drop_replication_slot('{slot.name}')"
            yield Check("slot", "warn", f"replication slot {slot.name} has lost what it needs", fix)
        elif slot.kept_bytes >= limits.kept_wal_bytes or slot.horizon >= limits.horizon:
            state = "is read" if slot.active else "is read by nobody"
            said = f"replication slot {slot.name} {state} and keeps {size(slot.kept_bytes)} of WAL"
            fix = "It fills the disk and may hold up vacuum: find its reader, or drop the slot if there is none."
            yield Check("slot", "warn", f"{said}; {counted(slot.horizon, 'transaction')} began since", fix)


def check_locks(found: Sequence[WaitingLock], limits: Limits) -> Iterator[Check]:
    long = [lock for lock in found if lock.waited_ms >= limits.lock_ms]
    for lock in long:
        holders = ", ".join(f"pid {pid}" if pid else "a prepared transaction" for pid in lock.blockers) or "nobody now"
        said = f"pid {lock.pid} waits for {lock.mode} on {lock.what} for {duration(lock.waited_ms)}, held by {holders}"
        fix = "; ".join(f"SELECT pg_terminate_backend({pid})" for pid in lock.blockers if pid)
        yield Check("lock", "warn", said, f"If who holds it stands still, end it: {fix}" if fix else "")
    if not long:
        yield Check("lock", "ok", f"{counted(len(found), 'wait')} for a lock, none for long")


def check_tables(found: Sequence[TableReport], limits: Limits) -> Iterator[Check]:
    largest = ", ".join(f"{t.name} {size(t.total_bytes)}" for t in found[:5])
    yield Check("sizes", "ok", f"{size(sum(t.total_bytes for t in found))} with indexes: {largest}")
    troubled = [check for t in found for check in _table(t, limits)]
    yield from troubled
    if all(check.name != "dead_rows" for check in troubled):
        dead = sum(t.dead for t in found)
        yield Check("dead_rows", "ok", f"{dead:,} dead to {sum(t.live for t in found):,} live rows")


def _table(t: TableReport, limits: Limits) -> Iterator[Check]:
    since = "never vacuumed" if t.vacuumed_ms is None else f"vacuumed {duration(t.vacuumed_ms)} ago"
    if not t.autovacuum:
        fix = f"ALTER TABLE {t.place} RESET (autovacuum_enabled)"
        yield Check("autovacuum", "fail", f"autovacuum is off for {t.name}: {t.dead:,} dead rows, {since}", fix)
    if t.dead >= max(2 * t.due_dead, limits.dead_rows):
        said = f"{t.name} has {t.dead:,} dead to {t.live:,} live rows, {since}; autovacuum is due at {t.due_dead:,}"
        fix = "Look for what holds it up above. If nothing does, autovacuum is too slow: lower its cost delay."
        yield Check("dead_rows", "warn", said, fix)
    needed = slack(t)
    if needed is not None and t.heap_bytes - needed >= max(limits.slack_bytes, 2 * needed):
        said = f"{t.name} has {size(t.heap_bytes)} where its rows need about {size(needed)}"
        fix = "Rows reuse the room. To give it back: VACUUM FULL in a pause (it locks the table), or pg_repack."
        yield Check("bloat", "warn", said, fix)


def slack(t: TableReport) -> float | None:
    """About how many bytes its live rows need, with the room that its fillfactor leaves; None while that is unknown."""
    return None if t.width is None else t.live * (t.width + ROW_OVERHEAD_BYTES) * 100 / t.fillfactor


def check_hot(tables: Sequence[TableReport], indexes: Sequence[IndexReport]) -> Iterator[Check]:
    """A renewal moves the lease in the index by which lapsed ones are found, so few updates of leases are HOT."""
    shares = []
    for t in tables:
        if t.name in WRITTEN_EACH_TIME:
            shares.append(f"{t.name} {t.updated_hot / t.updated:.0%} of {t.updated:,}" if t.updated else f"{t.name} -")
            if t.fillfactor > 90:
                said = f"{t.name} leaves {100 - t.fillfactor}% of its pages free: a new version finds no room beside"
                yield Check("hot", "warn", said, f"ALTER TABLE {t.place} SET (fillfactor = 75)")
    for index in indexes:
        written = WRITTEN_EACH_TIME.get(index.table_name, set()).intersection(index.columns)
        if written:
            said = f"index {index.name} has {', '.join(sorted(written))}, which changes with every transition"
            fix = f"Every step now writes all indexes of {index.table_name}. Drop it, or read a copy instead."
            yield Check("hot", "warn", said, fix)
    yield Check("updates", "ok", f"without a write to an index (HOT): {', '.join(shares)}")


def check_indexes(
    found: Sequence[IndexReport], differences: Sequence[Difference], tables: Sequence[TableReport], limits: Limits
) -> Iterator[Check]:
    ours = {difference.name for difference in differences if difference.kind == "index"}
    invalid = {index.name: index for index in found if not index.valid}
    troubles = 0
    for difference in differences:
        if difference.kind != "index":
            continue
        troubles += 1
        if difference.name in invalid:
            fix = f"REINDEX INDEX CONCURRENTLY {invalid[difference.name].place} (unless it is being built just now)"
            yield Check("index", "fail", f"index {difference.name} is not valid: nothing is found by it", fix)
        else:
            what = "is missing" if difference.is_missing else "was altered"
            yield Check("index", "fail", f"index {difference.name} {what}; hosts refuse to open it", difference.made_by)
    for index in invalid.values():
        if index.name not in ours:
            troubles += 1
            fix = f"It is written and never read: REINDEX INDEX CONCURRENTLY {index.place}, or drop it."
            yield Check("index", "warn", f"index {index.name} is not valid", fix)
    if not troubles:
        yield Check("index", "ok", f"{counted(len(found), 'index', 'indexes')}, all valid")
    yield from _unused(found, tables, limits)


def _unused(found: Sequence[IndexReport], tables: Sequence[TableReport], limits: Limits) -> Iterator[Check]:
    """Partial ones: an index of ours that nothing is found by costs nothing while it has no rows."""
    written = {t.name: t.live + t.updated for t in tables}
    idle = [
        index for index in found
        if index.partial and not index.used and written.get(index.table_name, 0) >= limits.writes
    ]  # fmt: skip
    large = [index for index in idle if index.bytes >= limits.index_bytes]
    for index in large:
        fix = "If it is yours, drop it. If it is ours, tell us: it should not grow while nobody reads it."
        yield Check("unused", "warn", f"index {index.name} has {size(index.bytes)} and was never read", fix)
    if idle and not large:
        yield Check("unused", "ok", f"never read so far, and small: {', '.join(index.name for index in idle)}")


def check_ages(found: Ages) -> Check:
    said = (
        f"the oldest row is {found.transactions:,} transactions old, freezing is forced at {found.transactions_due:,}"
    )
    if max(found.transactions, found.multixacts) >= LAST_AGE:
        fix = "The server stops taking writes at 2,147 million. End what holds vacuum up, and VACUUM this database now."
        return Check("freezing", "fail", said, fix)
    if found.transactions > found.transactions_due * 1.1 or found.multixacts > found.multixacts_due * 1.1:
        fix = "Autovacuum should have frozen it: look for what holds it up above, or VACUUM (FREEZE) in a calm hour."
        return Check("freezing", "warn", said, fix)
    return Check("freezing", "ok", said)
