"""A look at a database file that changes nothing: what `perdure doctor` knows about a store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure.clock import Moment
from perdure.codec import decode_registration, decode_state
from perdure.errors import DecodeError, ForeignStore, NewerSchema, StoreUnavailable
from perdure.model.leases import Lease, Owner
from perdure.model.record import STATUSES, ProcessRecord
from perdure.stores.owners import OwnerIdentity, OwnerReport, identify, prove_death
from perdure.stores.sqlite.connection import APPLICATION_ID, open_connection, typed, typed_errors
from perdure.stores.sqlite.migrations import migrations
from perdure.stores.sqlite.owner_locks import state_of_lock
from perdure.stores.sqlite.queries import load_queries
from perdure.stores.sqlite.wake import is_stale_socket

MANY = 1_000


class Inspection:
    """One read-only connection to a file that exists and is ours. Made by `open`; close it."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path, self.connection = path, connection
        self.store = f"sqlite:///{path}"
        self.sql = load_queries("inspect.sql")

    @classmethod
    def open(cls, path: Path) -> Inspection:
        """Raises StoreUnavailable (missing, unreadable), ForeignStore (also for an empty file), NewerSchema or
        StoreCorrupt. Creates no file; beside a WAL database SQLite may make its -shm file."""
        path = Path.cwd() / path
        store = f"sqlite:///{path}"
        if not path.is_file():
            raise StoreUnavailable(store, "there is no such file", "Check the path.")
        with typed_errors(store):
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            inspection = cls(path, connection)
            inspection._check_ours()
        except BaseException:
            connection.close()
            raise
        return inspection

    def close(self) -> None:
        self.connection.close()

    def _check_ours(self) -> None:
        application_id, version = self.pragma("application_id"), self.pragma("user_version")
        if application_id != APPLICATION_ID:
            if application_id or self._execute("SELECT count(*) FROM sqlite_schema")[0][0]:
                raise ForeignStore(self.store, "the database belongs to another program", "Choose another path.")
            raise ForeignStore(
                self.store, "the file is empty: no Perdure program has used it yet", "Start something on it first."
            )
        if version > self.newest_schema:
            raise NewerSchema(
                self.store,
                f"it has schema {version}, this version knows up to {self.newest_schema}",
                "Upgrade Perdure on this host.",
            )

    # --- the file ---------------------------------------------------------------------------------------------

    def pragma(self, name: str) -> Any:
        with typed_errors(self.store):
            return self.connection.pragma(name)

    @property
    def schema(self) -> int:
        return int(self.pragma("user_version"))

    @property
    def newest_schema(self) -> int:
        return migrations()[-1][0]

    @property
    def folder(self) -> Path:
        """Where owners keep their locks and sockets."""
        return self.path.with_name(self.path.name + ".owners")

    def synchronous(self) -> int:
        """What a connection gets that is opened as the store opens its own: 2 is FULL."""
        connection = open_connection(self.path, writer=False)
        try:
            return int(connection.pragma("synchronous"))
        finally:
            connection.close()

    def wal_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def quick_check(self) -> Sequence[str]:
        """SQLite's own check of the file; empty if it found nothing."""
        try:
            rows = self.connection.execute("PRAGMA quick_check(100)").fetchall()
        except apsw.Error as error:
            return (str(typed(error, self.store)),)
        return tuple(str(row[0]) for row in rows if row[0] != "ok")

    def sockets(self) -> tuple[int, int]:
        """How many wake sockets are bound, and how many are left over from programs that are gone."""
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(".sock")]
        except OSError:
            return 0, 0
        stale = sum(is_stale_socket(self.folder, name) for name in names)
        return len(names) - stale, stale

    # --- what lives on it -------------------------------------------------------------------------------------

    def owners(self, boot_id: str, *, one_kernel: bool) -> Sequence[OwnerReport]:
        me = identify("", "", boot_id, None)
        reports = []
        for incarnation, text, leases, holder in self._execute(self.sql["owners"]):
            if text is None:
                why = "it holds leases and is not enrolled: others wait for their expiry"
                reports.append(OwnerReport(incarnation, holder, leases, "unproven", why))
                continue
            owner = msgspec.json.decode(text, type=OwnerIdentity)
            proof = prove_death(owner, me, partial(state_of_lock, self.folder), one_kernel=one_kernel)
            if proof is not None:
                detail = f"{proof.method}: {proof.detail}"
                reports.append(OwnerReport(incarnation, owner.name, leases, "dead", detail, proof))
            elif self._holds_lock(owner):
                detail = f"pid {owner.pid} on {owner.host} holds its lock"
                reports.append(OwnerReport(incarnation, owner.name, leases, "alive", detail))
            else:
                why = f"pid {owner.pid} on {owner.host}: nothing proves it alive or dead"
                reports.append(OwnerReport(incarnation, owner.name, leases, "unproven", why))
        return reports

    def _holds_lock(self, owner: OwnerIdentity) -> bool:
        if not owner.lock_name or os.path.basename(owner.lock_name) != owner.lock_name:
            return False
        try:
            fd = os.open(self.folder / owner.lock_name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(fd).st_ino == owner.lock_inode
        except OSError:
            return False
        finally:
            os.close(fd)
        return False

    def unended(self, dead: Collection[str]) -> Sequence[tuple[ProcessRecord, Lease | None]]:
        """Records that run or whose caller departed, each with its lease; one of a dead owner counts as none.
        Rows that can't be read are left to the verification."""
        found = []
        for id, body, state, *lease in self._execute(self.sql["unended"]):
            try:
                record = ProcessRecord(decode_registration(body, id), decode_state(state, id))
            except DecodeError:
                continue
            found.append((record, _lease(id, lease) if lease[0] is not None and lease[1] not in dead else None))
        return found

    def unknown_statuses(self) -> Sequence[tuple[str, str]]:
        """(id, status) of rows whose status this version doesn't know."""
        unknown = [status for status, _ in self._execute(self.sql["statuses"]) if status not in STATUSES]
        return [
            (id, status)
            for status in unknown
            for (id,) in self._execute(self.sql["ids_of_status"], {"status": status, "limit": MANY})
        ]

    def counts(self) -> dict[str, int]:
        """How many processes have each status."""
        return dict(self._execute(self.sql["statuses"]))

    def newest_write_at_ms(self) -> int | None:
        newest: int | None = self._execute(self.sql["newest_event"])[0][0]
        return newest

    def clock_steps_ms(self, now: Moment) -> Sequence[int]:
        """By how much the wall clock was stepped since each lease of this boot was written."""
        rows = self._execute(self.sql["lease_clocks"], {"boot_id": now.boot_id})
        return [now.wall_ms - now.boot_ms - offset for (offset,) in rows]

    def _execute(self, statement: str, bindings: dict[str, Any] | None = None) -> Sequence[Any]:
        with typed_errors(self.store):
            return self.connection.execute(statement, bindings or {}).fetchall()


def _lease(process_id: str, row: Sequence[Any]) -> Lease:
    owner, incarnation, token, fence, claim_id, claimed_at, expires_at, boot_id, boot_expires_at, released = row
    return Lease(
        process_id, Owner(owner, incarnation), token, fence, claim_id, claimed_at, expires_at, boot_id,
        boot_expires_at, bool(released),
    )  # fmt: skip
