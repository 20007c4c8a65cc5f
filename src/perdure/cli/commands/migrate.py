"""perdure migrate"""

from __future__ import annotations

import click

from perdure.cli.exit_codes import ExitCode
from perdure.cli.surface import Surface, common, run_async
from perdure.errors import InvalidOption
from perdure.stores.postgres.url import check_driver, is_postgres, without_password


@click.command(
    epilog="""\b
Examples:
  perdure migrate --db postgresql://admin@db/work
  perdure migrate --db postgresql://db/work --sql --worker app | psql work"""
)
@click.option("--sql", "as_sql", is_flag=True, help="Print what would be done, for psql. Asks no server.")
@click.option("--from", "version", type=click.IntRange(0), default=0, metavar="VERSION",
              help="With --sql: the version that stands. [0: no schema yet]")  # fmt: skip
@click.option("--worker", "workers", multiple=True, metavar="ROLE", help="With --sql: grant what a worker needs.")
@click.option("--reader", "readers", multiple=True, metavar="ROLE", help="With --sql: grant what a look needs.")
@common
def migrate(surface: Surface, as_sql: bool, version: int, workers: tuple[str, ...], readers: tuple[str, ...]) -> int:
    """Make the schema of a PostgreSQL database, or bring it forward.

    A host does this by itself where its role may. Where the role of the hosts may not, an administrator does it with
    this command, and grants them what they need: they can then add to a log and never change it.
    An SQLite file is brought forward whenever it is opened.
    """
    if not is_postgres(surface.url):
        raise InvalidOption("--db", without_password(surface.url), "a postgresql:// URL")
    if not as_sql and (workers or readers or version):
        raise InvalidOption("--sql", False, "--from, --worker and --reader with --sql only")
    check_driver(surface.url)
    from perdure.stores.postgres import administration

    if as_sql:
        print(administration.migration_sql(surface.url, version), end="")
        for role in workers:
            print(administration.grants_sql(surface.url, "worker", role), end="")
        for role in readers:
            print(administration.grants_sql(surface.url, "reader", role), end="")
        return ExitCode.OK

    async def bring_forward() -> int:
        before, after = await administration.migrate(surface.url)
        if surface.json:
            surface.document("migrate", before=before, after=after)
        else:
            surface.say(f"schema {after} stands" if before == after else f"schema {before} brought to {after}")
        return ExitCode.OK

    return run_async(bring_forward)
