"""Claiming among very many rows that wait and that have ended: what isn't claimable must not be visited."""

from __future__ import annotations

import time

from bench.measure import Target, emit, median, ratio
from bench.postgres.place import Place
from bench.postgres.subject import Templates, make_host, take_templates, url_of
from bench.subject import OWNER, Row
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.store import PostgresRegistry
from perdure.transitions.commands import ClaimNext, ClaimReceipt

ROWS_PER_N, CLAIMS, PAGE = 100, 100, 50_000
RATIO = Target("at most", 2.0)
SPARE = 200
"""Rows that are ready, more than are claimed."""


async def _fill(connection: Connection, schema: str, templates: Templates, waiting: int, ended: int) -> None:
    """Half of those that wait are ready and of a definition that nobody here has, half are ready tomorrow."""
    tomorrow = {**templates.pending, "ready_at": templates.pending["ready_at"] + 86_400_000}
    foreign = {**templates.pending, "ready_at": 1, "lane": templates.pending["lane"].replace("noop", "other")}
    first = 1
    for count, row in (
        (waiting // 2, tomorrow), (waiting - waiting // 2, foreign), (ended, templates.completed),
        (SPARE, templates.pending),
    ):  # fmt: skip
        await _insert(connection, schema, templates, row, first, count)
        first += count
    await connection.execute(f"SELECT setval('{schema}.process_rows', {first + 1_024})")
    await connection.execute(f"VACUUM ANALYZE {schema}.processes, {schema}.registrations")


async def _insert(connection: Connection, schema: str, templates: Templates, row: Row, first: int, count: int) -> None:
    """Copies of a row and of its registration, made by the server."""
    prefix = row["id"][:-12]
    made = f"'{prefix}' || lpad(to_hex(i), 12, '0')"
    names = [name for name in row if name not in ("row", "id")]
    others = ", ".join(f"t.{name}" for name in names)
    columns = ", ".join(f"{name}" for name in names)
    await connection.execute(
        f"CREATE TEMP TABLE t AS SELECT * FROM {schema}.processes WITH NO DATA; CREATE TEMP TABLE r (body text)"
    )
    await connection.copy_records_to_table("t", records=[tuple(row.values())], columns=list(row))
    body = templates.registration["body"].replace(templates.pending["id"], "@")
    await connection.execute(
        "INSERT INTO r VALUES ($1)", body.replace('"noop"', '"other"') if "other" in row["lane"] else body
    )
    for at in range(first, first + count, PAGE):
        last = min(at + PAGE, first + count) - 1
        await connection.execute(
            f"INSERT INTO {schema}.processes (row, id, {columns}) "
            f"SELECT i, {made}, {others} FROM t, generate_series({at}, {last}) AS i"
        )
        await connection.execute(
            f"INSERT INTO {schema}.registrations (row, change, body) "
            f"SELECT i, 1, replace(r.body, '@', {made}) FROM r, generate_series({at}, {last}) AS i"
        )
    await connection.execute("DROP TABLE t, r")


async def _claim_ms(place: Place, waiting: int, ended: int, reps: int) -> list[float]:
    """The median time of a claim of one row, by repetition."""
    async with place.schema() as schema, place.connection() as connection:
        templates = await take_templates(place.url, schema, connection)
        await connection.execute(
            f"TRUNCATE {schema}.processes, {schema}.registrations, {schema}.events, {schema}.leases"
        )
        await _fill(connection, schema, templates, waiting, ended)
        registry = await PostgresRegistry.open(url_of(place.url, schema))
        _, noop, _ = make_host(place.url, work=False, registry=registry)
        medians = []
        for rep in range(reps):
            took = []
            for number in range(CLAIMS // reps):
                claim = ClaimNext(
                    claim_id=f"claim-{rep}-{number}", token="token-of-22-characters", owner=OWNER, limit=1,
                    ttl_ms=60_000, definitions=(noop.definition,),
                )  # fmt: skip
                began = time.perf_counter()
                receipt: ClaimReceipt = await registry.execute(claim)
                took.append((time.perf_counter() - began) * 1e3)
                assert len(receipt.claimed) == 1
            medians.append(median(took))
        await registry.close()
    return medians


async def measure(place: Place) -> None:
    many = place.plan.n * ROWS_PER_N
    few = await _claim_ms(place, 0, 0, place.plan.reps)
    emit("claim.of_an_empty_table", few, "ms", n=0)
    full = await _claim_ms(place, many, many, place.plan.reps)
    emit(f"claim.beside_{many}_waiting_and_{many}_ended", full, "ms", n=2 * many, **ratio(full, few, RATIO))
