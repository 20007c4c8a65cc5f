"""What a registry promises. It has no waits: waiting is the driver's, above it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, overload

import msgspec

from perdure.clock import Moment
from perdure.contract.live import LiveWire
from perdure.errors import PerdureError
from perdure.model.events import Event
from perdure.model.leases import DeathProof, Enrolment, Lease, Owner
from perdure.model.progress import Progress
from perdure.model.queries import EventPage, Filter, Page, RecordPage
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition
from perdure.transitions.commands import (
    AnyReceipt,
    ClaimNext,
    ClaimReceipt,
    Command,
    ProgressReceipt,
    Receipt,
    Register,
    Renew,
    RenewReceipt,
    ReportProgress,
    RowCommand,
    Signal,
)

TransactionWork = Callable[[Any], Coroutine[Any, Any, RowCommand]]
"""The user's code in a transaction of the store: given the store's connection, it writes what it wants to and returns
the command that commits with it."""

CommitListener = Callable[[Sequence[AnyReceipt]], None]
"""Called on the event loop after each commit, in commit order, before the callers are answered. Must not block."""


class Commands(Protocol):
    """Changing processes."""

    @overload
    def execute(self, command: RowCommand) -> Awaitable[Receipt]: ...
    @overload
    def execute(self, command: ClaimNext) -> Awaitable[ClaimReceipt]: ...
    @overload
    def execute(self, command: Renew) -> Awaitable[RenewReceipt]: ...
    @overload
    def execute(self, command: ReportProgress) -> Awaitable[ProgressReceipt]: ...
    def execute(self, command: Command) -> Awaitable[AnyReceipt]:
        """Do one command, durably: once answered, it is on disk.

        Raises the typed refusal; a refused command has written nothing. A caller that is cancelled while it waits
        leaves its command committed whole or withdrawn whole. Commands of one host on one process keep their order.
        """
        ...

    def execute_all(self, commands: Sequence[Command]) -> Awaitable[list[AnyReceipt | PerdureError]]:
        """The bulk face: answers stand in the order of the commands; a refusal stands where its receipt would."""
        ...

    def execute_together(self, commands: Sequence[Command]) -> Awaitable[list[AnyReceipt | PerdureError]]:
        """A few commands in one transaction: renewals and reports of progress first, then row commands, then claims,
        which see what those did."""
        ...

    async def execute_within(self, work: TransactionWork) -> Receipt:
        """Open a transaction, let `work` write on its connection, and do the command that it returns: one commit, both
        or neither. What holds for `execute` holds for it.

        Raises what `work` raises, and the command's refusal; a command that finds its event stored already takes back
        what `work` has written, and answers with that event. NotTransactional where the store has no connection to
        give, and for code that would end the transaction or write to Perdure's own tables.
        """
        ...

    def renew_from_thread(self, command: Renew) -> Future[RenewReceipt]:
        """Renew from any thread, ahead of queued commands, whether or not the event loop is responsive."""
        ...

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        """Hear of every commit made through this registry object. Returns the function that ends it."""
        ...


class Undelivered(msgspec.Struct, frozen=True):
    """A posted command that could not be done. `kept`: it stays posted, since another version may be able to; else it
    was refused, as it would have been had it been asked then, and is gone."""

    process_id: str
    error: PerdureError
    kept: bool


class Delivery(msgspec.Struct, frozen=True):
    """What one delivery did: the answers to the commands that it did, and those that it could not do."""

    receipts: tuple[Receipt, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()


class Joining(Protocol):
    """Taking part in a transaction of the caller's own: what is asked stands if and only if that one commits.

    `connection` is the caller's, in a transaction of his, on the database of this store. What is refused leaves his
    transaction as it was. Raises NotTransactional where the store can't take part, or not in what was given. With a
    connection that blocks these never wait, and may be run on any thread, without an event loop.
    """

    async def register_joined(self, command: Register, connection: object) -> Receipt:
        """Register, decided here and now: the receipt, the conflict and the replay are exact. Nobody hears of it before
        the commit, and nothing is claimed with it."""
        ...

    async def post(self, command: Signal, connection: object) -> None:
        """Put a signal down to be delivered after the commit: the log of its process has one order, and writing to it
        would hold the process up for as long as the transaction is open. Raises what is known to be refused by now."""
        ...

    async def deliver_posted(self) -> Delivery:
        """Do what was posted and has been committed, each exactly once, in the order of posting for each process: one
        bounded batch. Done by whoever drives; safe to do by many at once."""
        ...


class Reads(Protocol):
    """Looking at processes. Each read sees every commit acknowledged before it was asked."""

    async def get(self, process_id: str) -> ProcessRecord:
        """Raises UnknownProcess, NoLongerRetained, or DecodeError if the row can't be read as it stands."""
        ...

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        """The records that exist, by id."""
        ...

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        """Of these ids, the ones that are live no more: ended, departed, pruned or unknown. Far cheaper than reading
        them, so that a thousand waits cost one look."""
        ...

    async def get_lease(self, process_id: str) -> Lease | None:
        """The lease row that stands, whether or not it has lapsed."""
        ...

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        """Matching records in order of id."""
        ...

    async def count(self, filter: Filter = Filter()) -> int:  # noqa: B008 - frozen value
        ...

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        """Events past `sequence`, in order, without loss or repeat. Raises UnknownProcess; verifies checksums."""
        ...

    async def recent_events(self, process_id: str, limit: int = 100) -> EventPage:
        """The last `limit` events, oldest first."""
        ...

    async def find_event(self, process_id: str, event_type: str, after_sequence: int) -> Event | None:
        """The first event of that type past the sequence."""
        ...

    async def progress_of(self, process_ids: Collection[str]) -> dict[str, Progress]:
        """How far these processes said they had come, by id: what was accepted last, also after their end."""
        ...

    async def next_due_at_ms(self, lanes: Sequence[str], now: Moment) -> int | None:
        """The earliest moment after `now` at which something falls due: a row of these lanes, a deadline, a lapsing
        lease, an unsettled end. What is due already is found by a drive, not by waiting."""
        ...

    async def due_for_settling(self, now: Moment, incarnations: Collection[str], limit: int) -> Sequence[str]:
        """Ids, at most `limit`, of rows that a settling pass must look at: a deadline passed on a parked row, a
        lapsed lease (or one of a dead incarnation) with an abandon request or a passed deadline, an unsettled end."""
        ...

    async def peer_changes(self) -> Sequence[str] | None:
        """Ids of rows that other programs wrote since this was last asked (rows of this one may be among them), and of
        those that something is posted to.

        None: too many to list, any row may have changed. Costs at most one cheap read when nobody else has written.
        """
        ...

    def now(self) -> Moment:
        """The time that decides leases and due times in this store, as far as it is known without asking."""
        ...


class Owners(Protocol):
    """Who may hold leases here, and proof that one of them is dead."""

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None = None) -> None:
        """Make the owner known, with the evidence that lets others prove its death. Before its first claim.

        `definitions` is what it can run, for others to read; enrolled again, it is what it can run from then on.
        """
        ...

    async def enrolled(self) -> tuple[Enrolment, ...]:
        """The owners that are enrolled and can't be proved dead now, by name. Not all of them need be alive."""
        ...

    async def withdraw(self, owner: Owner) -> None:
        """The owner holds nothing any more and will claim nothing more."""
        ...

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        """Proofs for every lease-holding owner that can be proved dead now. Absence of proof is never death."""
        ...

    def lifeline(self, incarnation: str) -> int | None:
        """A descriptor for a program that runs on behalf of this enrolled owner: while that program has it open, the
        owner is not proved dead, unless it was withdrawn or its store closed: whoever does that has ended its programs.
        None if this store proves no deaths by what is open."""
        ...

    def on_peer_hint(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called on the event loop, coalesced, when another program has committed. A hint: some may
        be lost. Returns the function that ends it; must be called on the event loop."""
        ...


class Registry(Commands, Joining, Reads, Owners, Protocol):
    """The store of processes."""

    @property
    def name(self) -> str:
        """What a person would call it: its URL without secrets."""
        ...

    @property
    def live_wire(self) -> LiveWire:
        """What carries live output between those who share this store."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go of everything. Later calls raise StoreClosed."""
        ...
