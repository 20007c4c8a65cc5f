"""What a transition writes: rows of its own process alone, few of them, and indexes only where a key has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from perdure import Host, ProcessContext, WorkerOptions
from perdure.model.outcomes import Completed
from perdure.model.progress import Progress
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import (
    AppendEvent,
    Claimed,
    Complete,
    LeaseRight,
    Renew,
    ReportedProgress,
    ReportProgress,
)
from tests.postgres.quiet import quiet_world
from tests.postgres.worlds import World, register, run, until, world

Rows = dict[tuple[str, str], tuple[str, ...]]

ROWS = """
SELECT '{t}' AS name, jsonb_build_array({keys})::text AS key, t.ctid::text, t.xmin::text, t.xmax::text FROM {s}.{t} AS t
"""


async def standing(w: World) -> Rows:
    """Every row of every table of the schema, and which transactions have written or locked it last."""
    tables = await w.sql.fetch(
        "SELECT c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS keys FROM pg_index AS i "
        "JOIN pg_class AS c ON c.oid = i.indrelid "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) "
        "WHERE i.indisprimary AND c.relnamespace = to_regnamespace($1) GROUP BY c.relname", f'"{w.schema}"',
    )  # fmt: skip
    assert len(tables) >= 9
    parts = [ROWS.format(t=name, keys=keys, s=f'"{w.schema}"') for name, keys in tables]
    return {(name, key): tuple(marks) for name, key, *marks in await w.sql.fetch("UNION ALL".join(parts))}


async def written(w: World, change: Callable[[], Awaitable[Any]]) -> set[tuple[str, str]]:
    """The rows that the change has made, altered, locked or taken away."""
    before = await standing(w)
    await change()
    after = await standing(w)
    return {row for row in before.keys() | after.keys() if before.get(row) != after.get(row)}


class Life:
    """The transitions of one process, and the rows that each has written."""

    def __init__(self, w: World, id: str) -> None:
        self.w, self.id = w, id
        self.rows: dict[str, set[tuple[str, str]]] = {}
        self._claimed: list[Claimed] = []

    async def live(self, transition: str) -> None:
        self.rows[transition] = await written(self.w, getattr(self, transition))

    @property
    def _right(self) -> LeaseRight:
        return LeaseRight(self._claimed[0].lease.key)

    async def start(self) -> None:
        await self.w.register(self.id)

    async def claim(self) -> None:
        self._claimed.extend((await self.w.claim(f"owner-of-{self.id}", limit=1)).claimed)
        assert [one.record.id for one in self._claimed] == [self.id]

    async def step(self) -> None:
        await self.w.registry.execute(
            AppendEvent(process_id=self.id, type="note", payload=raw("done"), execution=self._right)
        )

    async def renew(self) -> None:
        renewed = await self.w.registry.execute(Renew(keys=(self._claimed[0].lease.key,), ttl_ms=20_000))
        assert renewed.renewals[0].held

    async def report(self) -> None:
        said = ReportedProgress(self._claimed[0].lease.key, Progress(1, 2))
        await self.w.registry.execute(ReportProgress(reports=(said,)))

    async def end(self) -> None:
        await self.w.registry.execute(Complete(process_id=self.id, outcome=Completed(raw(1)), authority=self._right))


TRANSITIONS = ("start", "claim", "step", "renew", "report", "end")


async def two_lives(w: World) -> tuple[Life, Life]:
    """Two processes, each run by an owner of its own, transition by transition in turns."""
    lives = Life(w, "a"), Life(w, "b")
    for transition in TRANSITIONS:
        for life in lives:
            await life.live(transition)
    return lives


def all_rows(life: Life) -> set[tuple[str, str]]:
    return set().union(*life.rows.values())


def test_every_transition_writes_these_tables_and_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for life in await two_lives(w):
                assert {transition: sorted(name for name, _ in rows) for transition, rows in life.rows.items()} == {
                    "start": ["processes", "registrations"],
                    "claim": ["events", "leases", "processes"],
                    "step": ["events", "processes"],
                    "renew": ["leases"],
                    "report": ["leases", "progress"],
                    "end": ["events", "leases", "processes"],
                }

    run(test())


def test_no_row_is_written_or_locked_by_the_transitions_of_two_processes(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            a, b = await two_lives(w)
            assert len(all_rows(a)) == len(all_rows(b)) >= 6
            assert all_rows(a) & all_rows(b) == set()

    run(test())


def test_a_row_that_all_processes_write_would_be_seen(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            s = f'"{w.schema}"'
            await w.sql.execute(
                f"CREATE TABLE {s}.totals (one int PRIMARY KEY, changes int); INSERT INTO {s}.totals VALUES (1, 0); "
                f"CREATE FUNCTION {s}.tally() RETURNS trigger LANGUAGE plpgsql AS "
                f"'BEGIN UPDATE {s}.totals SET changes = changes + 1; RETURN NULL; END'; "
                f"CREATE TRIGGER tally AFTER UPDATE ON {s}.processes EXECUTE FUNCTION {s}.tally()"
            )
            a, b = await two_lives(w)
            assert all_rows(a) & all_rows(b) == {("totals", "[1]")}

    run(test())


# --- indexes ---------------------------------------------------------------------------------------------------


async def updates(w: World, table: str) -> tuple[int, int]:
    """Rows updated, and of these the ones that touched no index (HOT). A server process tells when it ends."""
    row = await w.sql.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = $2",
        w.schema, table,
    )  # fmt: skip
    return row[0], row[1]


def test_steps_touch_no_index_of_processes() -> None:
    async def test() -> None:
        async with quiet_world() as w:
            host = Host(w.url, options=WorkerOptions(drain_grace_ms=0))

            @host.process(recovery="rerunnable")
            async def count(ctx: ProcessContext, steps: int) -> int:
                return sum([await ctx.step(one, number, key=str(number)) for number in range(steps)])

            async with host:
                assert await (await host.start(count, 40, id="p")).result() == 40

            async def all_told() -> bool:
                return (await updates(w, "processes"))[0] >= 41

            await until(all_told, "the steps are in the statistics")
            found, hot = await updates(w, "processes")
            assert found - hot <= 3  # its start, its end, and what follows the end

    async def one(number: int) -> int:
        return 1

    run(test())


def test_a_renewal_moves_its_lease_in_the_index_of_lapses_and_vacuum_keeps_the_table_as_it_is() -> None:
    """docs/postgresql.md says so. What is found by when it lapses can't be renewed without a write to that index."""

    async def test() -> None:
        async with quiet_world() as w:
            s = f'"{w.schema}"'
            await w.sql.execute(f"ALTER TABLE {s}.leases SET (autovacuum_enabled = off)")
            await w.registry.execute_all([register(f"p{n:02}") for n in range(20)])
            keys = tuple(one.lease.key for one in (await w.claim()).claimed)
            assert len(keys) == 20
            sizes = []
            for _ in range(6):
                peer = await w.peer()
                for _ in range(50):
                    renewed = await peer.execute(Renew(keys=keys, ttl_ms=20_000))
                    assert all(renewal.held for renewal in renewed.renewals)
                await peer.close()
                await w.sql.execute(f"VACUUM {s}.leases")
                sizes.append(await w.fetchval("SELECT pg_total_relation_size('{s}.leases')"))

            async def all_told() -> bool:
                return (await updates(w, "leases"))[0] >= 6_000

            await until(all_told, "the renewals are in the statistics")
            assert (await updates(w, "leases"))[1] == 0
            assert max(sizes) <= 2 * sizes[0]

    run(test())
