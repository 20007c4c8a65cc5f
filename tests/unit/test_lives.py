"""F.1: whatever is asked in whatever order, one life of a process keeps its promises."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.clock import Moment
from perdure.codec import as_events, refold
from perdure.errors import PerdureError
from perdure.model.events import AnyFact, Event
from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.transitions.claims import Ended, Granted, decide_claim
from perdure.transitions.commands import ClaimNext, LeaseRight, Register, Release, RowCommand
from perdure.transitions.decide import decide
from perdure.transitions.decision import Drop, Put, Standing, applied_facts
from tests.unit.asked import COMMANDS
from tests.unit.situations import ANYTHING, NOW, WORK, A, B, registration

CLAIM = ClaimNext(claim_id="claim-9", token="token-9", owner=B, limit=1, ttl_ms=15_000, definitions=(WORK,))

moves = st.tuples(st.sampled_from(COMMANDS), st.sampled_from([0, 1, 1_000, 5_000]), st.booleans())


class Life:
    """One row under a sequence of commands and claims, as a store would keep it."""

    def __init__(self) -> None:
        self.record: ProcessRecord | None = None
        self.lease: Lease | None = None
        self.log: list[Event] = []
        self.now = NOW
        self.fences: list[int] = []

    def pass_ms(self, ms: int) -> None:
        self.now = Moment(self.now.wall_ms + ms, self.now.boot_ms + ms, self.now.boot_id)

    def do(self, command: RowCommand) -> None:
        name = getattr(command, "replay_key", None)
        keyed = next((e for e in self.log if name is not None and e.replay_key == name), None)
        decided = decide(Standing(self.record, self.lease, (), keyed), command, self.now)
        if isinstance(decided, PerdureError):
            return
        if decided.base is not None:
            self.record = decided.base
        assert self.record is not None
        events = as_events("p", decided.facts, self.record.state.last_sequence + 1, self.now.wall_ms)
        if events and decided.replay_key is not None:
            events = (msgspec.structs.replace(events[0], replay_key=decided.replay_key), *events[1:])
        self.record = applied_facts(self.record, decided.facts, self.now)
        self.log += events
        match decided.lease:
            case Put(put):
                self.lease = put
            case Drop():
                self.lease = None

    def claim(self) -> None:
        match decide_claim(Standing(self.record, self.lease), CLAIM, self.now, {}):
            case Granted(granted, fact):
                self._say(fact)
                self.lease = granted
                self.fences.append(granted.fence)
            case Ended(fact):
                self._say(fact)
                self.lease = None

    def _say(self, fact: AnyFact) -> None:
        assert self.record is not None
        self.log += as_events("p", (fact,), self.record.state.last_sequence + 1, self.now.wall_ms)
        self.record = applied_facts(self.record, (fact,), self.now)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["rerunnable", "owner_bound", "externally_owned"]), st.lists(moves, max_size=40))
def test_whatever_is_asked_in_whatever_order_the_log_folds_to_the_record(
    recovery: str, asked: list[tuple[RowCommand, int, bool]]
) -> None:
    life = Life()
    declared = registration(recovery, signals={"go": ANYTHING})  # type: ignore[arg-type]
    life.do(Register(process_id="p", registration=declared))
    outcome = None
    for command, ms, claims in asked:
        life.pass_ms(ms)
        if claims:
            life.claim()
        presented = _with_standing_key(command, life.lease)
        life.do(presented)
        assert life.record is not None
        assert refold(declared, NOW.wall_ms, life.log) == life.record
        assert [event.sequence for event in life.log] == list(range(1, len(life.log) + 1))
        assert outcome is None or life.record.outcome == outcome
        outcome = life.record.outcome
    assert life.fences == sorted(set(life.fences))


def _with_standing_key(command: RowCommand, standing: Lease | None) -> RowCommand:
    """The same command from whoever holds the row now, where it is an execution's."""
    if standing is None:
        return command
    for field in ("execution", "authority"):
        if isinstance(getattr(command, field, None), LeaseRight):
            return msgspec.structs.replace(command, **{field: LeaseRight(standing.key)})
    if isinstance(command, Release) and command.key.incarnation == A.incarnation:
        return msgspec.structs.replace(command, key=standing.key)
    return command
