"""What `perdure doctor` checks of a PostgreSQL database, in order. It reads, each time for a few seconds at most."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from perdure.cli.doctoring import server, upkeep, work
from perdure.cli.doctoring.check import Check
from perdure.cli.doctoring.limits import Limits
from perdure.clock import Clock, Moment
from perdure.errors import StoreError, StoreReadOnly, StoreUnavailable
from perdure.ids import Ids
from perdure.stores.postgres.findings import (
    Ages,
    ConnectionsReport,
    IndexReport,
    OpenTransaction,
    PostedReport,
    PreparedTransaction,
    ServerReport,
    Setting,
    Slot,
    StatusCount,
    TableReport,
    WaitingLock,
)
from perdure.stores.postgres.inspection import Difference, Inspection, was_cut_short
from perdure.stores.postgres.schema import NEWEST
from perdure.stores.postgres.shared import database_moment

Checked = Coroutine[Any, Any, Iterable[Check]]


async def check_store(
    url: str, clock: Clock, ids: Ids, limits: Limits = Limits(),  # noqa: B008 - a frozen value
) -> AsyncIterator[Check]:  # fmt: skip
    """All checks in order. One that shows the store to be unusable carries the error and is the last."""
    inspection = Inspection(url)
    try:
        async for check in _Look(inspection, clock, ids, limits).checks():
            yield check
            if check.error is not None:
                return
    finally:
        await inspection.close()


class _Look:
    """One look; what a later check needs of an earlier one is kept on it."""

    def __init__(self, inspection: Inspection, clock: Clock, ids: Ids, limits: Limits) -> None:
        self._found, self._clock, self._ids, self._limits = inspection, clock, ids, limits
        self._version = 0
        self._differences: list[Difference] = []
        self._about: int | None = None

    async def checks(self) -> AsyncIterator[Check]:
        try:
            told = await self._found.row("server", ServerReport)
        except StoreError as error:
            yield _unusable("server", error)
            return
        for check in server.check_server(told):
            yield check
        steps: list[tuple[str, Callable[[], Checked]]] = [
            ("settings", self._settings), ("clock", self._clocks), ("rights", lambda: self._rights(told)),
            ("schema", self._schema),
        ]  # fmt: skip
        if not told.in_recovery:  # a standby neither sends nor takes notifications
            steps.append(("hints", self._hints))
        steps += [
            ("transaction", lambda: self._holders(told)), ("tables", self._tables), ("freezing", self._ages),
            ("owners", self._work), ("posted", self._posted), ("status", self._statuses),
        ]  # fmt: skip
        for name, step in steps:
            async for check in _tried(name, step):
                yield check

    async def _settings(self) -> Iterable[Check]:
        found = await self._found.rows("settings", Setting, names=list(server.SETTINGS))
        connections = await self._found.row("connections", ConnectionsReport)
        checks = [*server.check_settings({setting.name: setting.value for setting in found})]
        return [*checks, server.check_connections(connections, self._limits)]

    async def _clocks(self) -> Iterable[Check]:
        before_ms = self._clock.now().wall_ms
        server_ms: int = await self._found.value("now")
        return [server.check_clock(server_ms, before_ms, self._clock.now().wall_ms, self._limits)]

    async def _rights(self, told: ServerReport) -> Iterable[Check]:
        if not told.has_schema:
            raise _Unusable(
                StoreUnavailable(
                    self._found.store, f"there is no schema {self._found.target.schema!r}, and looking creates none",
                    "Check the URL, or make the schema first: `perdure migrate`.",
                )
            )  # fmt: skip
        lacking = await self._found.lacking()
        checks = [*server.check_rights(lacking, told.role)]
        if any(right.kind == "schema" or right.object == "versions" for right in lacking):
            raise _Unusable(StoreReadOnly(self._found.store, checks[0].detail, checks[0].fix), name="rights")
        return checks

    async def _schema(self) -> Iterable[Check]:
        try:
            self._version = await self._found.version()
        except StoreError as error:
            raise _Unusable(error) from error
        if self._version == 0:
            raise _Unusable(
                StoreUnavailable(
                    self._found.store, f"the schema {self._found.target.schema!r} is empty",
                    "Make it: `perdure migrate`.",
                )
            )  # fmt: skip
        if self._version == NEWEST:
            self._differences = await self._found.differences()
        return server.check_schema(self._found.target.schema, self._version, self._differences)

    async def _hints(self) -> Iterable[Check]:
        heard = await self._found.hears_itself(self._ids)
        return [server.check_hints(heard, self._found.is_pooled)]

    async def _holders(self, told: ServerReport) -> Iterable[Check]:
        open_ = await self._found.rows("transactions", OpenTransaction)
        prepared = await self._found.rows("prepared", PreparedTransaction)
        slots = await self._found.rows("slots", Slot)
        locks = await self._found.rows("locks", WaitingLock)
        return [
            *upkeep.check_transactions(open_, told.sees_all, self._limits),
            *upkeep.check_prepared(prepared, self._limits),
            *upkeep.check_slots(slots, self._limits),
            *upkeep.check_locks(locks, self._limits),
        ]

    async def _tables(self) -> Iterable[Check]:
        tables = await self._found.rows("tables", TableReport)
        indexes = await self._found.rows("indexes", IndexReport)
        return [
            *upkeep.check_tables(tables, self._limits),
            *upkeep.check_hot(tables, indexes),
            *upkeep.check_indexes(indexes, self._differences, tables, self._limits),
        ]

    async def _ages(self) -> Iterable[Check]:
        return [upkeep.check_ages(await self._found.row("ages", Ages))]

    async def _work(self) -> Iterable[Check]:
        now = await self._now()
        owners = await self._found.owners(self._clock.now().boot_id)
        dead = {owner.incarnation for owner in owners if owner.state == "dead"}
        runs = await self._found.lapsed(now.wall_ms, dead)
        if await self._may_count():
            runs += await self._found.departed()
        return [*work.check_owners(owners), *work.check_runs(runs, now)]

    async def _posted(self) -> Iterable[Check]:
        return [work.check_posted(await self._found.row("posted", PostedReport))] if self._version == NEWEST else []

    async def _statuses(self) -> Iterable[Check]:
        if not await self._may_count():
            said = f"about {await self._count_about():,} processes; so many are not counted by status"
            return [Check("status", "ok", said)]
        found = await self._found.rows("statuses", StatusCount)
        return [work.check_statuses({row.status: row.count for row in found})]

    async def _may_count(self) -> bool:
        return await self._count_about() <= self._limits.counted_rows

    async def _count_about(self) -> int:
        if self._about is None:
            self._about = int(await self._found.value("rows_about"))
        return self._about

    async def _now(self) -> Moment:
        return database_moment(await self._found.value("now"))


class _Unusable(Exception):
    """Without this nothing more can be looked at."""

    def __init__(self, error: StoreError, name: str = "schema") -> None:
        super().__init__(str(error))
        self.error, self.name = error, name


async def _tried(name: str, step: Callable[[], Checked]) -> AsyncIterator[Check]:
    try:
        for check in await step():
            yield check
    except _Unusable as unusable:
        yield _unusable(unusable.name, unusable.error)
    except StoreError as error:
        problem, remedy = str(error.fields["problem"]), str(error.fields["remedy"])
        if was_cut_short(error):
            yield Check(name, "warn", "looking took too long and was given up: nothing is known about it", remedy)
        else:
            yield Check(name, "fail", problem, remedy)


def _unusable(name: str, error: StoreError) -> Check:
    return Check(name, "fail", str(error.fields["problem"]), str(error.fields["remedy"]), error)
