"""The server: whether promises can be kept on it, and how it is set up for work of this kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from perdure.cli.doctoring.check import Check
from perdure.cli.doctoring.limits import Limits
from perdure.cli.text import duration, moment
from perdure.hosting.serving import SAFETY_INTERVAL_S
from perdure.stores.postgres.connections import OLDEST_SERVER, UNSAFE_SETTINGS
from perdure.stores.postgres.findings import ConnectionsReport, Right, ServerReport
from perdure.stores.postgres.inspection import Difference
from perdure.stores.postgres.schema import NEWEST

SETTINGS = (
    *UNSAFE_SETTINGS, "autovacuum", "track_counts", "default_transaction_isolation", "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
)  # fmt: skip
SHOWN = 5


def check_server(server: ServerReport) -> Iterator[Check]:
    said = f"PostgreSQL {server.version}, as role {server.role}"
    if server.version_num < OLDEST_SERVER:
        yield Check("server", "fail", said, "Perdure needs version 14 or newer.")
    else:
        yield Check("server", "ok", said)
    if server.in_recovery:
        yield Check("writable", "fail", "a standby: it takes no writes", "Connect hosts to the primary.")


def check_settings(settings: Mapping[str, str]) -> Iterator[Check]:
    yield _durability(settings)
    off = [name for name in ("autovacuum", "track_counts") if settings[name] == "off"]
    yield Check(
        "autovacuum", "fail" if off else "ok", f"{' and '.join(off)} off" if off else "on",
        "Nothing clears dead rows away. Turn it on in postgresql.conf, and reload." if off else "",
    )  # fmt: skip
    isolation = settings["default_transaction_isolation"]
    plain = isolation == "read committed"
    yield Check(
        "isolation", "ok" if plain else "warn", f"default_transaction_isolation is {isolation}",
        "" if plain else "What hosts decide asks for read committed itself; their reads, and a transaction of your own "
        "that you pass as connection=, get this one, and may have to be done again. Set it per transaction instead.",
    )  # fmt: skip
    if settings["default_transaction_read_only"] == "on":
        fix = "Hosts can't enrol. Set it per transaction, not for the role, the database or the server."
        yield Check("writable", "fail", "default_transaction_read_only is on", fix)
    idle = settings["idle_in_transaction_session_timeout"]
    said = "is 0: nothing ends a transaction of yours that stands still" if idle == "0" else f"is {idle}"
    yield Check("idle_limit", "ok", f"idle_in_transaction_session_timeout {said}; those of hosts end after 10s")


def _durability(settings: Mapping[str, str]) -> Check:
    said = ", ".join(f"{name}={settings[name]}" for name in UNSAFE_SETTINGS)
    unsafe = [name for name, worst in UNSAFE_SETTINGS.items() if settings[name] == worst]
    if unsafe:
        fix = f"Turn {' and '.join(unsafe)} on: this server may lose what was acknowledged, and hosts refuse it."
        return Check("durability", "fail", said, fix)
    if settings["synchronous_commit"] == "local":
        fix = "A commit waits for this server alone: a failover may lose what was acknowledged last."
        return Check("durability", "warn", said, fix)
    return Check("durability", "ok", said)


def check_connections(found: ConnectionsReport, limits: Limits) -> Check:
    said = f"{found.used} of {found.most} connections used, {found.of_hosts} by hosts"
    if found.used * 100 >= found.most * limits.connections_share:
        fix = "A host takes up to a dozen. Raise max_connections (or the role's limit), or put a pooler in between."
        return Check("connections", "warn", said, fix)
    return Check("connections", "ok", f"{said}; a host takes up to a dozen")


def check_clock(server_ms: int, before_ms: int, after_ms: int, limits: Limits) -> Check:
    """The server's clock was read between two readings of this machine's."""
    apart_ms = server_ms - (before_ms + after_ms) // 2
    if not before_ms - limits.clock_ms <= server_ms <= after_ms + limits.clock_ms:
        fix = "Leases and due times go by the server's clock alone; correct whichever is wrong all the same."
        said = f"the server's clock is {apart_ms / 1000:+.1f} s apart from this machine's"
        return Check("clock", "warn", said, fix)
    return Check("clock", "ok", f"{moment(server_ms)}, {apart_ms:+d} ms from this machine's")


def check_rights(lacking: Sequence[Right], role: str) -> Iterator[Check]:
    if not lacking:
        yield Check("rights", "ok", f"{role} may run processes")
        return
    blind = [right for right in lacking if right.privilege in ("USAGE", "SELECT") and right.kind != "sequence"]
    listed = ", ".join(f"{r.privilege} on {r.kind} {r.object}" for r in lacking[:SHOWN])
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    fix = f"perdure migrate --sql --worker {role} prints all that a worker needs (--reader: what a look needs)."
    if not blind and all(right.privilege != "EXECUTE" for right in lacking) and _is_only_a_reader(lacking):
        yield Check("rights", "ok", f"{role} may look; it may not run processes")
        return
    yield Check("rights", "fail", f"{role} lacks {listed}{more}", fix)


def _is_only_a_reader(lacking: Sequence[Right]) -> bool:
    """It has been given nothing that writes: not a worker that was forgotten something."""
    from perdure.stores.postgres.inspection import worker_rights

    writing = {right for right in worker_rights() if right.privilege in ("INSERT", "UPDATE", "DELETE")}
    return writing <= set(lacking)


def check_schema(name: str, version: int, differences: Sequence[Difference]) -> Iterator[Check]:
    said = f"schema {name!r} has version {version}, this program's is {NEWEST}"
    if version < NEWEST:
        fix = "perdure migrate brings it forward, and so does the next host whose role may. It was not compared."
        yield Check("schema", "warn", said, fix)
        return
    yield Check("schema", "ok", said)
    for found in differences:
        if found.kind == "index":
            continue  # told of with the indexes
        what = "is missing" if found.is_missing else "was altered"
        fix = "Hosts refuse to open it. Restore it: `perdure migrate --sql` prints what it must be."
        yield Check("verified", "fail", f"{found.kind} {found.name} {what}", fix)
    if all(found.kind == "index" for found in differences):
        yield Check("verified", "ok", "columns, sequences and functions are what they must be")


def check_hints(heard: bool, pooled: bool) -> Check:
    if heard:
        return Check("hints", "ok", "a notification comes back: hosts hear of each other's commits at once")
    seen = f"hosts read what others did every {duration(SAFETY_INTERVAL_S * 1000)} instead"
    if pooled:
        return Check("hints", "ok", f"a pooler is in between, which brings no notifications; {seen}")
    fix = "Nothing is lost. If there is a pooler in between, say prepared=no in the URL; else look at the server's log."
    return Check("hints", "warn", f"no notification came back; {seen}", fix)
