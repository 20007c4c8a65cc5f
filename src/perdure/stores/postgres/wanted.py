"""What a batch of commands will look at, known before it is decided: it can be locked and read in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.stores.claim_pool import lanes_of, refused_claim
from perdure.stores.registry import event_name
from perdure.stores.rows import EventName
from perdure.transitions.commands import ClaimNext, Command, Register, Renew, ReportProgress, RowCommand


class Wanted:
    """The ids that the commands name, in order; the events asked for by name; the claims."""

    def __init__(self, commands: Sequence[Command]) -> None:
        named = [command for command in commands if isinstance(command, RowCommand)]
        leased = {id for command in commands for id in ids_of(command) if not isinstance(command, RowCommand)}
        self.claims = [c for c in commands if isinstance(c, ClaimNext) and refused_claim(c) is None]
        self.names: list[EventName] = [name for command in named if (name := event_name(command))]
        self.only_leases = bool(leased) and not named and not self.claims
        changed = {c.process_id for c in named if self.claims or not isinstance(c, Register)} | leased
        self.ids = _existable(changed)
        self.seen_ids = _existable({c.process_id for c in named} - changed)
        """Of these only the registration is asked for, which never changes: a row that exists need not be locked."""

    def proposed_with(self, claim: ClaimNext) -> int:
        """How many rows the claims that look where this one looks may come to want: what the batch has touched may be
        proposed in vain."""
        alike = [c for c in self.claims if c.proofs == claim.proofs and lanes_of(c) == lanes_of(claim)]
        return sum(c.limit for c in alike) + len(self.ids)


def ids_of(command: Command) -> list[str]:
    """The processes that it names."""
    match command:
        case RowCommand():
            return [command.process_id]
        case Renew():
            return [key.process_id for key in command.keys]
        case ReportProgress():
            return [reported.key.process_id for reported in command.reports]
        case ClaimNext():
            return []


def can_exist(process_id: str) -> bool:
    """Whether it may be asked for: other ids can't be in any row, and text with a NUL can't even be sent."""
    return process_id.isascii() and "\0" not in process_id


def _existable(ids: set[str]) -> list[str]:
    return sorted(filter(can_exist, ids))
