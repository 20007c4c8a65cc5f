"""The owners of one file: enrolled with evidence, proved dead by others, and forgotten once nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, cast

import apsw
import msgspec

from perdure.model.leases import DeathProof, Enrolment, Owner
from perdure.model.registration import Definition
from perdure.stores.owners import OwnerIdentity, enrolments
from perdure.stores.sqlite.peers import Peers
from perdure.stores.sqlite.reader import Reader
from perdure.stores.sqlite.rows import as_text
from perdure.stores.sqlite.writer import Writer


class OwnerBook:
    """The table of owners, beside the folder of their locks. Used on the event loop."""

    def __init__(self, peers: Peers, writer: Writer, reader: Reader, holders_sql: str) -> None:
        self._peers, self._writer, self._reader, self._holders_sql = peers, writer, reader, holders_sql
        self._holders: Sequence[tuple[str, str | None]] | None = None
        self._own_position = -1
        self._proofs: dict[str, DeathProof] = {}

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None) -> None:
        """Write the owner down, and clear away the dead that hold nothing any more."""
        said = None if definitions is None else tuple(definitions)
        identity = msgspec.structs.replace(self._peers.enrol(owner), definitions=said)
        sql = self._writer.rows.sql

        def write(connection: apsw.Connection) -> None:
            connection.execute(sql["enrol_owner"], {"incarnation": owner.incarnation, "identity": as_text(identity)})
            for dead in self._peers.dead_among(_identities(connection, sql["idle_owners"])):
                connection.execute(sql["withdraw_owner"], {"incarnation": dead})
            self._peers.sweep([known.lock_name for known in _identities(connection, sql["owners"])])

        await asyncio.wrap_future(self._writer.write(write))

    async def withdraw(self, owner: Owner) -> None:
        def delete(connection: apsw.Connection) -> None:
            connection.execute(self._writer.rows.sql["withdraw_owner"], {"incarnation": owner.incarnation})

        await asyncio.wrap_future(self._writer.write(delete))
        self._peers.withdraw(owner)

    async def enrolled(self) -> tuple[Enrolment, ...]:
        """Those whose death can't be proved now."""
        owners = await self._reader.call(lambda connection: _identities(connection, self._writer.rows.sql["owners"]))
        return enrolments(owner for owner in owners if self._peers.prove_death(owner) is None)

    def peers_wrote(self) -> None:
        """Other programs have committed: who holds leases may have changed."""
        self._holders = None

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        """Proofs about the holders that can be proved dead. A death is proved once: an incarnation never recurs."""
        position = self._writer.rows.position
        if self._holders is None or position != self._own_position:
            rows = await self._reader.call(lambda c: cast("Any", c.execute(self._holders_sql).fetchall()))
            self._holders, self._own_position = [(incarnation, identity) for incarnation, identity in rows], position
            held = {incarnation for incarnation, _ in self._holders}
            self._proofs = {incarnation: proof for incarnation, proof in self._proofs.items() if incarnation in held}
        for incarnation, identity in self._holders:
            if incarnation not in self._proofs and identity is not None:
                proof = self._peers.prove_death(msgspec.json.decode(identity, type=OwnerIdentity))
                if proof is not None:
                    self._proofs[incarnation] = proof
        return tuple(self._proofs.values())


def _identities(connection: apsw.Connection, sql: str) -> list[OwnerIdentity]:
    rows: Any = connection.execute(sql).fetchall()
    return [msgspec.json.decode(text, type=OwnerIdentity) for (text,) in rows]
