"""The contract, written once over the row primitives: load, decide, persist, commit.

A batch of commands is one transaction. The commands that name a row are decided first, in order, each against what
the ones before it decided; then each claim decides about what the database proposes and what the batch has touched.
What was decided is persisted once, in bulk. A refusal concerns its own command only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from perdure.canonical import is_storable
from perdure.clock import Moment
from perdure.codec import encode_fact
from perdure.contract.registry import TransactionWork
from perdure.errors import InvalidOption, InvalidPayload, PerdureError
from perdure.model.events import AnyFact, Event
from perdure.model.leases import DeathProof, Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.stores.claim_pool import Lanes, Pool, lanes_of, refused_claim
from perdure.stores.rows import Candidate, EventName, Rows, RowWrite
from perdure.transitions.claims import Granted, Skipped, decide_claim
from perdure.transitions.commands import (
    AnyReceipt,
    AppendEvent,
    Claimed,
    ClaimNext,
    ClaimReceipt,
    Command,
    ProgressReceipt,
    Receipt,
    Register,
    Renew,
    Renewal,
    RenewReceipt,
    ReportProgress,
    RowCommand,
    Signal,
)
from perdure.transitions.decide import decide
from perdure.transitions.decision import Decision, Drop, Put, Standing, operation_hash
from perdure.transitions.fold import apply
from perdure.transitions.leases import check_key, extend, is_held, proofs_by_incarnation
from perdure.transitions.progress import accepts_progress
from perdure.transitions.projection import lane, project
from perdure.transitions.requests import signal_replay_key

Result = AnyReceipt | PerdureError


class _Row(RowWrite):
    """One row while a transaction decides about it: what it will be, and what of that is not persisted yet."""

    __slots__ = ("changed", "lease_changed", "said", "touched")

    def __init__(self, key: int, record: ProcessRecord, lease: Lease | None) -> None:
        super().__init__(key, record, lease)
        self.changed = self.lease_changed = self.touched = False
        self.said: list[Event] = []

    def say(self, facts: Sequence[AnyFact], now: Moment, replay_key: str | None, command: RowCommand | None) -> None:
        """Append facts: the first under the replay key, all of them under the command's operation."""
        registration, state = self.record.registration, self.record.state
        id, sequence, at_ms = registration.id, state.last_sequence, now.wall_ms
        operation_id = asked = None
        if command is not None and command.operation_id is not None:
            operation_id, asked = command.operation_id, operation_hash(command)
        events = []
        for fact in facts:
            sequence += 1
            payload = msgspec.Raw(encode_fact(fact))
            events.append(Event(id, sequence, fact.type, payload, at_ms, replay_key, operation_id, asked))
            state = apply(registration, state, fact, sequence, at_ms)
            replay_key = None
        self.record = ProcessRecord(registration, state)
        self.fresh += events
        self.said += events
        self.changed = True

    def hold(self, lease: Lease | None) -> None:
        self.lease, self.lease_changed = lease, True


def _standing(row: _Row | None, name: EventName | None, stored: Sequence[Event]) -> Standing:
    if row is None:
        return Standing()
    if name is None or not (stored or row.said):
        return Standing(row.record, row.lease)
    known = [*stored, *row.said]
    operation = name.operation_id
    said = tuple(e for e in known if operation is not None and e.operation_id == operation)
    keyed = next((e for e in known if name.replay_key is not None and e.replay_key == name.replay_key), None)
    return Standing(row.record, row.lease, said, keyed)


class Transaction:
    """Decides one batch of commands against the rows of one open transaction."""

    def __init__(self, rows: Rows, now: Moment) -> None:
        self._rows, self._now = rows, now
        self._loaded: dict[str, _Row | PerdureError] = {}
        self._touched: list[_Row] = []
        self._spare = 0  # how many of them the database may still propose to a claim
        self._pools: dict[tuple[Lanes, tuple[DeathProof, ...]], Pool] = {}

    async def run(self, commands: Sequence[Command]) -> list[Result]:
        """Decide and persist every command; the caller commits."""
        results: list[Result | None] = [None] * len(commands)
        named = [(i, c) for i, c in enumerate(commands) if isinstance(c, RowCommand)]
        renewals = [(i, c) for i, c in enumerate(commands) if isinstance(c, Renew)]
        reports = [(i, c) for i, c in enumerate(commands) if isinstance(c, ReportProgress)]
        leased = {key.process_id for _, renew in renewals for key in renew.keys}
        leased |= {reported.key.process_id for _, report in reports for reported in report.reports}
        await self._load({c.process_id for _, c in named} | leased)
        names = {id(c): name for _, c in named if (name := event_name(c))}
        stored = await self._find_events(list(names.values()))
        for index, renew in renewals:
            results[index] = self._renew(renew)
        for index, report in reports:
            results[index] = await self._report(report)
        for index, command in named:
            results[index] = self._decide(command, names.get(id(command)), stored)
        claims = [(i, refused_claim(c) or c) for i, c in enumerate(commands) if isinstance(c, ClaimNext)]
        valid = [claim for _, claim in claims if isinstance(claim, ClaimNext)]
        again = await self._rows.leased_by_claims(valid) if valid else {}
        for index, claim in claims:
            if isinstance(claim, PerdureError):
                results[index] = claim
            elif claim.claim_id in again:
                results[index] = await self._claimed_before(again[claim.claim_id])
            else:
                results[index] = await self._claim(claim, valid)
        await self._persist()
        return [result for result in results if result is not None]

    # --- commands that name their row -------------------------------------------------------------------------

    def _decide(self, command: RowCommand, name: EventName | None, stored: dict[str, list[Event]]) -> Result:
        row = self._loaded.get(command.process_id)
        if isinstance(row, PerdureError):
            return row
        decision = decide(_standing(row, name, stored.get(command.process_id, ())), command, self._now)
        if isinstance(decision, PerdureError):
            return decision
        if row is None:
            assert decision.base is not None, "only a registration makes a row"
            row = self._loaded[command.process_id] = _Row(0, decision.base, None)
            row.changed = True
            self._touch(row)
        return self._do(row, command, decision)

    def _do(self, row: _Row, command: RowCommand, decision: Decision) -> Result:
        events = decision.replayed
        if decision.facts:
            before = len(row.said)
            self._touch(row)
            try:
                row.say(decision.facts, self._now, decision.replay_key, command)
            except UnicodeEncodeError as error:  # some text of the command holds a lone surrogate
                return InvalidPayload("$", f"{error.object[error.start]!r} (a lone surrogate)", "Unicode text")
            events = tuple(row.said[before:])
        lease = decision.lease
        if isinstance(lease, Put):
            self._touch(row)
            row.hold(lease.lease)
        elif isinstance(lease, Drop) and row.lease is not None:
            self._touch(row)
            row.hold(None)
        return Receipt(command.process_id, decision.answer, row.record, events, row.lease, bool(decision.replayed))

    def _touch(self, row: _Row) -> None:
        if row.touched:
            return
        row.touched = True
        self._touched.append(row)
        if row.key and (row.record.state.status != "running" or not is_held(row.lease, self._now)):
            self._spare += 1

    def _renew(self, command: Renew) -> RenewReceipt | PerdureError:
        if command.ttl_ms <= 0:
            return InvalidOption("ttl_ms", command.ttl_ms, "more than 0")
        renewals = []
        for key in command.keys:
            row = self._loaded.get(key.process_id)
            if not isinstance(row, _Row) or check_key(row.lease, key, self._now):
                renewals.append(Renewal(key.process_id, held=False))
                continue
            assert row.lease is not None
            self._touch(row)
            row.hold(extend(row.lease, command.ttl_ms, self._now))
            request = row.record.state.cancel_request
            reason, by = (request.reason, request.by) if request else (None, None)
            renewals.append(Renewal(key.process_id, True, row.lease, reason, by))
        return RenewReceipt(tuple(renewals))

    async def _report(self, command: ReportProgress) -> ProgressReceipt:
        """Before the commands that name a row: a run's last report comes with the end of its lease."""
        accepted: dict[int, Progress] = {}
        answers = []
        for reported in command.reports:
            row = self._loaded.get(reported.key.process_id)
            answers.append(isinstance(row, _Row) and accepts_progress(row.lease, reported, self._now))
            if answers[-1] and isinstance(row, _Row):
                accepted[row.key] = reported.progress
        if accepted:
            await self._rows.save_progress(accepted)
        return ProgressReceipt(tuple(answers))

    # --- claims -----------------------------------------------------------------------------------------------

    async def _claimed_before(self, ids: Sequence[str]) -> ClaimReceipt:
        """A claim whose answer was lost: what it got, and nothing new."""
        await self._load(ids)
        rows = [row for id in sorted(ids) if isinstance(row := self._loaded.get(id), _Row)]
        rows.sort(key=lambda row: row.record.registration.priority)
        return ClaimReceipt(tuple(Claimed(row.record, row.lease) for row in rows if row.lease))

    async def _claim(self, command: ClaimNext, claims: Sequence[ClaimNext]) -> ClaimReceipt:
        """`claims`: all of this batch."""
        proofs = proofs_by_incarnation(command.proofs)
        pool = self._pools.get((lanes_of(command), command.proofs)) or await self._fill_pool(command, claims)
        claimed: list[Claimed] = []
        ended: list[ProcessRecord] = []
        events: list[Event] = []
        scanned = 0
        while len(claimed) < command.limit and (candidate := pool.take()) is not None:
            scanned += 1
            row = self._loaded.get(candidate.process_id)
            if not isinstance(row, _Row):
                continue
            decision = decide_claim(Standing(row.record, row.lease), command, self._now, proofs)
            if isinstance(decision, Skipped):
                continue
            self._touch(row)
            row.say((decision.fact,), self._now, None, None)
            events.append(row.said[-1])
            if isinstance(decision, Granted):
                row.hold(decision.lease)
                claimed.append(Claimed(row.record, decision.lease))
            else:
                row.hold(None)
                ended.append(row.record)
        return ClaimReceipt(tuple(claimed), tuple(ended), tuple(events), scanned)

    async def _fill_pool(self, command: ClaimNext, claims: Sequence[ClaimNext]) -> Pool:
        """Enough for all claims of the batch on these lanes. What this transaction has touched is not in the database
        yet: such a row may be proposed wrongly (it is decided by what it has become) or not at all (it is proposed
        from here)."""
        lanes = lanes_of(command)
        wanted = sum(c.limit for c in claims if c.proofs == command.proofs and lanes_of(c) == lanes)
        proofs = proofs_by_incarnation(command.proofs)
        candidates = await self._rows.claimable(lanes, wanted + self._spare, self._now, proofs)
        await self._load([candidate.process_id for candidate in candidates])
        touched = set(self._touched_candidates(lanes))
        pool = Pool(sorted(touched.union(candidates)) if touched else candidates)
        self._pools[lanes, command.proofs] = pool
        return pool

    def _touched_candidates(self, lanes: Sequence[str]) -> Iterator[Candidate]:
        for row in self._touched:
            registration, due_at_ms = row.record.registration, project(row.record).ready_at_ms
            if due_at_ms is not None and lane(registration.queue, registration.definition) in lanes:
                yield Candidate(registration.priority, due_at_ms, registration.id)

    # --- loading and persisting -------------------------------------------------------------------------------

    async def _load(self, process_ids: Sequence[str] | set[str]) -> None:
        missing = [id for id in process_ids if id not in self._loaded and id.isascii()]  # others can't exist
        if missing:
            for id, row in (await self._rows.load(missing)).items():
                self._loaded[id] = row if isinstance(row, PerdureError) else _Row(row.key, row.record, row.lease)

    async def _find_events(self, names: Sequence[EventName]) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = {}
        for event in await self._rows.find_events(names) if names else ():
            found.setdefault(event.process_id, []).append(event)
        return found

    async def _persist(self) -> None:
        rows, self._touched = self._touched, []
        if not rows:
            return
        inserts, saves = [row for row in rows if not row.key], [row for row in rows if row.key and row.changed]
        if inserts:
            await self._rows.insert_records(inserts)
        if saves:
            await self._rows.save_records(saves)
        speaking = [row for row in rows if row.fresh]
        if speaking:
            await self._rows.append_events(speaking)
        leased = [row for row in rows if row.lease_changed or (row.lease is not None and _moves_lease(row.record))]
        if leased:
            await self._rows.save_leases(leased)
        for row in rows:
            row.changed = row.lease_changed = row.touched = False
            row.fresh = []


def _moves_lease(record: ProcessRecord) -> bool:
    """Whether a change of the record has moved where its standing lease is found."""
    return record.state.abandon_request is not None


def event_name(command: RowCommand) -> EventName | None:
    """The names under which its events may stand already."""
    replay_key: str | None = None
    match command:
        case AppendEvent():
            replay_key = command.replay_key
        case Signal():
            replay_key = signal_replay_key(command)
        case Register():
            return None
    if replay_key is None and command.operation_id is None:
        return None
    if not is_storable(f"{command.process_id}{command.operation_id}{replay_key}"):
        return None  # it can't stand anywhere, and is refused
    return EventName(command.process_id, command.operation_id, replay_key)


class Unwritten(Exception):
    """Nothing of a lent transaction was written: its command was refused, or had been done before."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


async def transact_within(rows: Rows, work: TransactionWork) -> Result:
    """One transaction of the user's code and the command that it returns, or neither."""
    now = await rows.begin()
    try:
        command = await rows.lend(work)
        (result,) = await Transaction(rows, now).run((command,))
        if not isinstance(result, Receipt) or result.replayed:
            raise Unwritten(result)
        await rows.commit()
    except Unwritten as unwritten:
        await rows.rollback()
        return unwritten.result
    except BaseException:
        await rows.rollback()
        raise
    return result


async def transact(rows: Rows, commands: Sequence[Command]) -> list[Result]:
    """One transaction: all commands decided and persisted, committed once. Rolls back and raises if the store fails."""
    now = await rows.begin()
    try:
        results = await Transaction(rows, now).run(commands)
        await rows.commit()
    except BaseException:
        await rows.rollback()
        raise
    return results
