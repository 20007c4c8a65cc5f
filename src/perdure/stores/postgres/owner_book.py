"""The owners of one store: enrolled with evidence, proved dead by others on the same machine, and forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from perdure.model.leases import DeathProof, Enrolment, Owner
from perdure.model.registration import Definition
from perdure.stores.owners import LockState, OwnerIdentity, enrolments, identify, prove_death
from perdure.stores.postgres.changes import Changes
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import raise_typed
from perdure.stores.postgres.reader import Reader
from perdure.stores.postgres.shared import Shared

HOLDERS_GOOD_FOR_MS = 1_000


class OwnerBook:
    """Lives on the store's own loop. Elsewhere than on the owner's machine nothing proves a death: its leases lapse."""

    def __init__(self, shared: Shared, reader: Reader, connections: Connections, changes: Changes) -> None:
        self._shared, self._reader, self._connections, self._changes = shared, reader, connections, changes
        self._me = identify("", "", shared.time.local.now().boot_id, None)
        self._mine: set[str] = set()
        self._holders: Sequence[OwnerIdentity] = ()
        self._read_at_ms: int | None = None
        self._read_at = 0
        self._proofs: dict[str, DeathProof] = {}

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None) -> None:
        """Write the owner down, and clear away the dead that hold nothing any more."""
        identity = msgspec.structs.replace(
            identify(owner.name, owner.incarnation, self._shared.time.local.now().boot_id, None),
            definitions=None if definitions is None else tuple(definitions),
        )
        self._mine.add(owner.incarnation)
        await self._write("enrol_owner", incarnation=owner.incarnation, identity=msgspec.json.encode(identity).decode())
        idle = await self._reader.rows("idle_owners")
        dead = [known.incarnation for known in map(_identity, idle) if self._prove(known)]
        if dead:
            await self._write("withdraw_owners", incarnations=dead)

    async def withdraw(self, owner: Owner) -> None:
        await self._write("withdraw_owners", incarnations=[owner.incarnation])
        self._mine.discard(owner.incarnation)

    async def enrolled(self) -> tuple[Enrolment, ...]:
        """Those whose death can't be proved now."""
        owners = map(_identity, await self._reader.rows("owners"))
        return enrolments(owner for owner in owners if self._prove(owner) is None)

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        """Proofs about the holders that can be proved dead. A death is proved once: an incarnation never recurs."""
        now_ms, others_ended = self._shared.time.local.now().boot_ms, self._changes.others_ended
        if not self._know_holders(now_ms):
            self._holders = [_identity(row) for row in await self._reader.rows("holders")]
            self._read_at_ms, self._read_at = now_ms, others_ended
            held = {holder.incarnation for holder in self._holders}
            self._proofs = {incarnation: proof for incarnation, proof in self._proofs.items() if incarnation in held}
        for holder in self._holders:
            if holder.incarnation not in self._proofs and (proof := self._prove(holder)) is not None:
                self._proofs[holder.incarnation] = proof
        return tuple(self._proofs.values())

    def _know_holders(self, now_ms: int) -> bool:
        """Read a moment ago; or looks since then have found that nothing was written that could make one."""
        if self._read_at_ms is None:
            return False
        if 0 <= now_ms - self._read_at_ms < HOLDERS_GOOD_FOR_MS:
            return True
        return self._changes.is_fresh and self._changes.others_ended == self._read_at

    def _prove(self, owner: OwnerIdentity) -> DeathProof | None:
        if owner.incarnation in self._mine or owner.host != self._me.host:  # copies of one machine share its boot id
            return None
        return prove_death(owner, self._me, _no_lock, one_kernel=False)

    async def _write(self, name: str, **values: Any) -> None:
        statement = self._shared.sql[name]
        try:
            async with self._connections.one() as connection, connection.transaction():
                await connection.execute(statement.text, *statement.values(values))
        except Exception as error:
            raise_typed(error, self._shared.store)


def _no_lock(owner: OwnerIdentity) -> LockState:
    """Hosts share no folder in which one could be."""
    return LockState.UNTESTED


def _identity(row: Sequence[Any]) -> OwnerIdentity:
    return msgspec.json.decode(row[0], type=OwnerIdentity)
