"""Opening the file: its settings, its schema, and what each of SQLite's errors means to a caller."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from perdure.errors import (
    ForeignStore,
    NewerSchema,
    OutcomeUnknown,
    PerdureError,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    UnsafeFileSystem,
)
from perdure.stores.sqlite.filesystem import unsafe_filesystem
from perdure.stores.sqlite.migrations import migrations

APPLICATION_ID = 0x50455244  # "PERD": tells our files from everybody else's (PRAGMA application_id)
OLDEST_SQLITE = (3, 51, 3)  # older ones can corrupt a WAL file (https://sqlite.org/wal.html#walresetbug)
WAL_LIMIT_BYTES = 64 * 1024 * 1024
SWITCH_TRIES, SWITCH_RETRY_S = 1_000, 0.005


def typed(error: apsw.Error, store: str) -> PerdureError:
    """What an error of SQLite means: which file, what is wrong, what to do."""
    detail = str(error) or type(error).__name__
    extended = getattr(error, "extendedresult", 0)
    match error:
        case apsw.FullError():
            return StoreFull(store, "the disk is full", "Free some space; nothing acknowledged was lost.")
        case apsw.ReadOnlyError():
            return StoreReadOnly(store, "the file can't be written", "Check its permissions and the mount.")
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(
                store, "another program held the write lock past the bound", "Try again, or find who holds it."
            )
        case apsw.CorruptError():
            return StoreCorrupt(store, f"the file is damaged ({detail})", "Restore it from a backup.")
        case apsw.NotADBError():
            return ForeignStore(store, "this is not an SQLite database", "Choose another path.")
        case apsw.CantOpenError():
            return StoreUnavailable(
                store, f"the file can't be opened ({detail})", "Check that its folder exists and can be written."
            )
        case apsw.IOError() if extended in (apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_WRITE) and _is_full(store):
            return StoreFull(store, "the disk is full", "Free some space; nothing acknowledged was lost.")
        case apsw.IOError():
            return StoreUnavailable(store, f"reading or writing failed ({detail})", "Check the disk.")
        case _:
            return StoreUnavailable(store, detail, "This is not expected; please report it.")


def _is_full(store: str) -> bool:
    try:
        status = os.statvfs(Path(store.removeprefix("sqlite:///")).parent)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 1024 * 1024


@contextmanager
def typed_errors(store: str) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise typed(error, store) from error


def unknown_commit(error: apsw.Error, store: str) -> PerdureError:
    """A commit that failed in writing may or may not stand; one that never got the lock or the space does not."""
    if isinstance(error, apsw.IOError):
        return OutcomeUnknown(
            store, f"the answer of a commit was lost ({error})", "Ask again with the same operation id."
        )
    return typed(error, store)


def prepare_file(path: Path, *, unsafe_ok: bool) -> None:
    """Make the file (0600) if it is missing, and refuse where SQLite's locks can't be trusted."""
    store = f"sqlite:///{path}"
    kind = unsafe_filesystem(path)
    if kind is not None and not unsafe_ok:
        raise UnsafeFileSystem(
            store, f"it lies on a {kind} file system, whose locks can't be trusted",
            "Use a local disk, or pass unsafe_filesystem=True if only one program will ever open it.",
        )  # fmt: skip
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise StoreReadOnly(store, "the file can't be written", "Check its permissions.") from error
    except OSError as error:
        if error.errno == 30:  # EROFS
            raise StoreReadOnly(store, "it lies on a read-only file system", "Mount it writable.") from error
        raise StoreUnavailable(store, f"the file can't be opened ({error.strerror})", "Check its folder.") from error
    if not stat.S_ISREG(mode):
        raise StoreUnavailable(store, "it is not a regular file", "Choose another path.")


def open_connection(path: Path, *, writer: bool, vfs: str | None = None) -> apsw.Connection:
    """A connection with the settings that our promises rest on. Nothing is written to a file that isn't ours."""
    store = f"sqlite:///{path}"
    with typed_errors(store):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
        try:
            connection.set_busy_timeout(5_000)
            connection.execute("BEGIN")  # all that is checked is of one moment: another program may be making the file
            _check_ours(connection, store)
            connection.execute("COMMIT")
            _log_ahead(connection)
            connection.pragma("synchronous", 2)  # FULL: what is acknowledged is on disk
            connection.pragma("foreign_keys", 1)
            connection.pragma("trusted_schema", 0)
            connection.pragma("cell_size_check", 1)
            connection.pragma("journal_size_limit", WAL_LIMIT_BYTES)
            connection.pragma("temp_store", 2)
            if not writer:
                connection.pragma("query_only", 1)
        except BaseException:
            connection.close()
            raise
        return connection


def _log_ahead(connection: apsw.Connection) -> None:
    """Switch to WAL. Programs that make one file at the same time are in each other's way, and SQLite doesn't wait."""
    for _ in range(SWITCH_TRIES):
        try:
            connection.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            threading.Event().wait(SWITCH_RETRY_S)
    connection.pragma("journal_mode", "wal")


def ensure_schema(connection: apsw.Connection, store: str) -> None:
    """Bring an empty or older file forward in one transaction; refuse a newer or a foreign one."""
    steps = migrations()
    newest = steps[-1][0]
    with typed_errors(store):
        if (connection.pragma("application_id"), connection.pragma("user_version")) == (APPLICATION_ID, newest):
            return
        connection.transaction_mode = "IMMEDIATE"
        with connection:
            version = _check_ours(connection, store)
            for number, sql in steps:
                if number > version:
                    connection.execute(sql)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", newest)


def _check_ours(connection: apsw.Connection, store: str) -> int:
    """The file's schema version (0: it is empty), or the refusal of a foreign or newer file."""
    newest = migrations()[-1][0]
    application_id, version = connection.pragma("application_id"), connection.pragma("user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application_id != APPLICATION_ID and (tables or application_id):
        raise ForeignStore(store, "the database belongs to another program", "Choose another path.")
    if version > newest:
        raise NewerSchema(
            store,
            f"it has schema {version}, this version knows up to {newest}",
            "Upgrade Perdure on this host.",
        )
    return int(version)


def check_sqlite_version(store: str) -> None:
    found = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if found < OLDEST_SQLITE:
        raise StoreUnavailable(
            store, f"SQLite {apsw.sqlite_lib_version()} can corrupt a WAL file",
            f"Install an apsw that brings {'.'.join(map(str, OLDEST_SQLITE))} or newer.",
        )  # fmt: skip
