"""Several who want the same rows: nobody waits for what is not his, nobody is told what is not so."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from perdure.contract.moments import MomentName, NoMoments
from perdure.errors import StoreFull, StoreLocked
from perdure.model.leases import DeathProof
from perdure.model.outcomes import Completed
from perdure.model.progress import Progress
from perdure.stores.postgres import flushers
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import Overtaken
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.url import parse_url
from perdure.stores.postgres.wanted import Wanted
from perdure.stores.registry import Transaction
from perdure.stores.rows import RowWrite
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import Complete, LeaseRight, Receipt, Renew, RequestAbandon, RequestCancel
from tests.postgres.server import server_url
from tests.postgres.worlds import World, append, claim, register, run, until, waiting, world


def test_a_row_that_somebody_holds_delays_only_its_own_commands(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for n in range(10):
                await w.register(f"p{n}")
            async with w.holding("p3"):
                asked = [asyncio.ensure_future(w.append(f"p{n}")) for n in range(10)]
                behind = asyncio.ensure_future(w.append("p3", "second"))
                await asyncio.wait([one for n, one in enumerate(asked) if n != 3])
                assert not asked[3].done()
                assert not behind.done()
            await asyncio.gather(*asked, behind)
            events = (await w.registry.events_after("p3", 0)).events
            assert [event.type for event in events] == ["note", "second"]

    run(test())


def test_what_is_held_beyond_the_bound_is_refused_by_name_and_nothing_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushers, "LOCK_BOUND_S", 0.2)

    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            async with w.holding("p"):
                with pytest.raises(StoreLocked, match="somebody else's transaction holds a row"):
                    await w.append("p")
            await w.append("p", "later")
            events = (await w.registry.events_after("p", 0)).events
            assert [event.type for event in events] == ["later"]

    run(test())


def test_a_claim_passes_over_what_is_held_and_takes_what_follows(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for n in range(6):
                await w.register(f"p{n}")
            async with w.holding("p0", "p1", "p2"):
                first = await w.claim(limit=2)
                assert sorted(c.record.id for c in first.claimed) == ["p3", "p4"]
            second = await w.claim("b", limit=10)
            assert sorted(c.record.id for c in second.claimed) == ["p0", "p1", "p2", "p5"]

    run(test())


def test_a_claim_passes_over_a_lapsed_lease_that_is_held(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id)
            await w.claim("a")
            await w.lapse("p", "q")
            await w.register("r")
            async with w.holding("p", lease=True):
                assert sorted(c.record.id for c in (await w.claim("b")).claimed) == ["q", "r"]
            assert [c.record.id for c in (await w.claim("c")).claimed] == ["p"]

    run(test())


def test_a_claim_that_is_asked_again_while_its_rows_are_held_delays_no_other_and_is_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            asked = claim("a")
            await w.registry.execute(asked)
            await w.register("q")
            async with w.holding("p"):
                again = asyncio.ensure_future(w.registry.execute(asked))
                assert [c.record.id for c in (await w.claim("b")).claimed] == ["q"]
                await until(lambda: waiting(w), "the claim waits for its row")
            assert [c.record.id for c in (await again).claimed] == ["p"]

    run(test())


def test_a_claim_whose_rows_are_held_beyond_the_bound_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushers, "LOCK_BOUND_S", 0.2)

    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            asked = claim("a")
            await w.registry.execute(asked)
            async with w.holding("p"):
                with pytest.raises(StoreLocked, match="somebody else's transaction holds a row"):
                    await w.registry.execute(asked)
            assert [c.record.id for c in (await w.registry.execute(asked)).claimed] == ["p"]

    run(test())


def test_rows_that_are_held_for_long_do_not_delay_what_waits_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushers, "ALONE_WAIT_MS", 60_000)

    async def test() -> None:
        async with world(tmp_path) as w:
            for n in range(6):
                await w.register(f"p{n}")
            async with w.holding(*(f"p{n}" for n in range(5))):
                long = [asyncio.ensure_future(w.append(f"p{n}")) for n in range(5)]
                await until(lambda: many_wait(w, 4), "each of the five is tried alone", within_s=8)
                monkeypatch.setattr(flushers, "GROUP_WAIT_MS", 60_000)
                async with w.holding("p5"):
                    short = asyncio.ensure_future(w.append("p5"))
                    await until(lambda: many_wait(w, 5), "the sixth waits beside them", within_s=4)
                await short
                assert not any(one.done() for one in long)
            await asyncio.gather(*long)

    async def many_wait(w: World, many: int) -> bool:
        return await waiting(w) >= many

    run(test())


def test_what_met_another_insert_and_then_failed_is_told_to_no_listener(tmp_path: Path) -> None:
    class FailsAtSecond(NoMoments):
        commits: int | None = None

        def reached(self, moment: MomentName, process_id: str | None = None) -> None:
            if self.commits is not None and moment == "commit.before":
                self.commits += 1
                if self.commits == 2:
                    raise asyncpg.DiskFullError("no space")

    async def test() -> None:
        moments = FailsAtSecond()
        async with world(tmp_path, moments=moments) as w:
            heard: list[Any] = []
            w.registry.observe(heard.extend)
            await w.sql.execute("BEGIN")
            await w.sql.execute(
                f"INSERT INTO \"{w.schema}\".registrations (row, change, body) VALUES (-1, 1, '{{}}'); "
                f'INSERT INTO "{w.schema}".processes (row, id, lane, priority, status, state) '
                "VALUES (-1, 'met', 'none', 5, 'pending', '{}')"
            )
            moments.commits = 0
            asked = [asyncio.ensure_future(w.register(id)) for id in ("met", "made")]
            await until(lambda: waiting(w), "the insert waits for the other one")
            await w.sql.execute("COMMIT")
            met, made = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(met, StoreFull)
            assert isinstance(made, Receipt)
            assert [receipt.process_id for receipt in heard] == ["made"]

    run(test())


def test_a_lease_that_is_renewed_between_two_looks_of_one_transaction_is_not_overwritten(tmp_path: Path) -> None:
    """The second look must not pass for what was decided on: a row keeps what it was first read with."""

    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            (one,) = (await w.claim("a")).claimed
            thought_dead = claim("b", proofs=(DeathProof("a-1", "pid_gone", "a mistake"),))
            commands = append("p"), thought_dead
            target = parse_url(server_url(), w.schema)
            connections = Connections(target, 1)
            async with connections.one() as connection:
                rows = PostgresRows(connection, Shared(target, None, NoMoments()), Wanted(commands))
                now = await rows.begin()
                transaction = Transaction(rows, now)
                renewed = await asyncio.wrap_future(
                    w.registry.renew_from_thread(Renew(keys=(one.lease.key,), ttl_ms=60_000))
                )
                assert renewed.renewals[0].held
                await transaction.run(commands)
                with pytest.raises(Overtaken):
                    await rows.commit()
                await rows.rollback()
            await connections.close()
            assert (await w.registry.get_lease("p")) == renewed.renewals[0].lease

    run(test())


def test_nothing_is_written_of_a_row_that_somebody_else_has_inserted(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            (one,) = (await w.claim("a")).claimed
            target = parse_url(server_url(), w.schema)
            connections = Connections(target, 1)
            async with connections.one() as connection:
                shared = Shared(target, None, NoMoments())
                rows = PostgresRows(connection, shared, Wanted((register("p"),)), partly=True)
                await rows.begin()
                ours = RowWrite(0, one.record, one.lease)
                await rows.insert_records([ours])
                await rows.save_leases([ours])
                await rows.save_progress({ours.key: Progress(1, 2)})
                await rows.commit()
                assert rows.met == {"p"}
            await connections.close()
            assert await w.fetchval("SELECT count(*) FROM {s}.leases") == 1
            assert await w.fetchval("SELECT count(*) FROM {s}.progress") == 0
            assert await w.registry.get_lease("p") == one.lease

    run(test())


def test_an_insert_that_is_not_committed_elsewhere_delays_only_its_own_id(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute("BEGIN")
            await w.sql.execute(
                f'INSERT INTO "{w.schema}".processes (row, id, lane, priority, status, state) '
                "VALUES (-1, 'p5', 'none', 5, 'pending', '{}')"
            )
            asked = {n: asyncio.ensure_future(w.register(f"p{n}")) for n in range(10)}
            await asyncio.wait([one for n, one in asked.items() if n != 5])
            assert not asked[5].done()
            await w.sql.execute("ROLLBACK")
            receipts = await asyncio.gather(*asked.values())
            assert [receipt.answer for receipt in receipts] == ["applied"] * 10

    run(test())


def test_many_who_register_the_same_ids_in_different_orders_are_all_answered_alike(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            peers = [await w.peer() for _ in range(4)]
            try:
                answers = await asyncio.gather(*(_register_all(peer, seed) for seed, peer in enumerate(peers)))
            finally:
                for peer in peers:
                    await peer.close()
            applied = [answer for one in answers for answer in one if answer == "applied"]
            assert len(applied) == 600
            assert {answer for one in answers for answer in one} == {"applied", "unchanged"}
            assert await w.registry.count() == 600
            assert await w.fetchval("SELECT count(*) FROM {s}.registrations") == 600

    async def _register_all(peer: Any, seed: int) -> list[str]:
        ids = [f"p{n}" for n in range(600)]
        random.Random(seed).shuffle(ids)
        return [result.answer for result in await peer.execute_all([register(id) for id in ids])]

    run(test())


def test_a_start_that_meets_another_one_is_decided_again_whole(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            other = await w.peer()
            try:
                answers: Any = await asyncio.gather(
                    *(r.execute_together((register(f"p{n}"), claim(f"{name}{n}", limit=1)))
                      for n in range(40) for name, r in (("a", w.registry), ("b", other)))
                )  # fmt: skip
            finally:
                await other.close()
            claimed = [one.record.id for _, receipt in answers for one in receipt.claimed]
            assert len(claimed) == len(set(claimed)), "a row is claimed once"
            rest = await w.claim("c", limit=100)
            assert len(claimed) + len(rest.claimed) == 40

    run(test())


def test_leases_are_renewed_while_somebody_holds_their_rows(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for n in range(5):
                await w.register(f"p{n}")
            claimed = (await w.claim()).claimed
            keys = tuple(one.lease.key for one in claimed)
            async with w.holding("p1", "p2"):
                renewed = await asyncio.wrap_future(w.registry.renew_from_thread(Renew(keys=keys, ttl_ms=60_000)))
            assert [renewal.held for renewal in renewed.renewals] == [True] * 5
            for one in claimed:
                lease = await w.registry.get_lease(one.record.id)
                assert lease is not None
                assert lease.expires_at_ms > one.lease.expires_at_ms

    run(test())


def test_a_lease_that_was_renewed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """What was decided on the lease as it was read is decided again on what stands now."""

    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            (one,) = (await w.claim("a")).claimed
            holder = await w.peer()
            try:
                await w.sql.execute("BEGIN")  # the renewal of the owner, written and not committed yet
                await w.sql.execute(
                    f'UPDATE "{w.schema}".leases SET boot_expires_at = boot_expires_at + 60000, '
                    "expires_at = expires_at + 60000"
                )
                complete = Complete(process_id="p", outcome=Completed(raw(1)), authority=LeaseRight(one.lease.key))
                ending = asyncio.ensure_future(holder.execute(complete))
                await until(lambda: waiting(w), "the end waits for the lease")
                await w.sql.execute("COMMIT")
                assert (await ending).answer == "applied"
                assert await w.registry.get_lease("p") is None
                assert (await w.registry.get("p")).status == "completed"
            finally:
                await holder.close()

    run(test())


def test_an_abandon_request_moves_the_lease_that_a_renewal_goes_on_with(tmp_path: Path) -> None:
    """A renewal reads the row after it has locked the lease, so it can't put the lease back where it was found."""

    async def test() -> None:
        async with world(tmp_path) as w:
            ids = [f"p{n}" for n in range(30)]
            for id in ids:
                await w.register(id)
            claimed = (await w.claim()).claimed
            keys = tuple(one.lease.key for one in claimed)
            abandons = [w.registry.execute(RequestAbandon(process_id=id, by="operator", reason="gone")) for id in ids]
            renewals = [
                asyncio.wrap_future(w.registry.renew_from_thread(Renew(keys=keys, ttl_ms=15_000 + n)))
                for n in range(20)
            ]
            await asyncio.gather(*abandons, *renewals)
            assert await w.fetchval("SELECT count(*) FROM {s}.leases WHERE lane IS NOT NULL OR settle_at <> 0") == 0

    run(test())


def test_one_command_that_the_database_refuses_harms_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(
                f"""CREATE FUNCTION "{w.schema}".spoil() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION 'spoilt on purpose'; END $$;
                    CREATE TRIGGER spoil BEFORE INSERT ON "{w.schema}".processes FOR EACH ROW
                    WHEN (NEW.id = 'bad') EXECUTE FUNCTION "{w.schema}".spoil()"""
            )
            ids = [*(f"good{n}" for n in range(10)), "bad", *(f"good{n}" for n in range(10, 20))]
            results = await w.registry.execute_all([register(id) for id in ids])
            refused = [id for id, result in zip(ids, results, strict=True) if isinstance(result, BaseException)]
            assert refused == ["bad"]

    run(test())


def test_commands_of_one_program_on_one_process_keep_their_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            await w.register("q")
            both = append("p", "both"), append("q", "both")
            asked: list[Any] = []
            for n in range(200):
                asked.append(w.append("p", f"e{n}"))
                if n % 20 == 0:
                    asked.append(w.registry.execute_together(both))
                asked.append(w.append("q", f"e{n}"))
            await asyncio.gather(*asked)
            for id in ("p", "q"):
                types = [event.type for event in (await w.registry.events_after(id, 0)).events if event.type != "both"]
                assert types == [f"e{n}" for n in range(200)]

    run(test())


def test_a_caller_that_gives_up_leaves_its_command_whole_or_withdrawn(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            tasks = [asyncio.ensure_future(w.register(f"p{n}")) for n in range(100)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            kept = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(answer, Receipt) for answer in kept[1::2])
            cancel = await w.registry.execute(RequestCancel(process_id="p1", reason="enough"))
            assert cancel.record.status == "cancelled"
            count = await w.registry.count()
            assert 50 <= count <= 100
            assert count == await w.fetchval("SELECT count(*) FROM {s}.registrations")

    run(test())


def test_a_stored_row_is_read_back_as_it_was_written_whatever_its_size(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            large = {"text": "é" * 400_000}
            await w.register("p", input=raw(large))
            record = await w.registry.get("p")
            assert msgspec.json.decode(record.registration.input) == large

    run(test())
