"""Stores that can't take part in a transaction of the caller's own."""

from __future__ import annotations

from typing import NoReturn

from perdure.contract.registry import Delivery
from perdure.errors import NotTransactional
from perdure.transitions.commands import Register, Signal


class NotJoined:
    """Their answer to the contract's Joining: a connection of the caller's is another one than theirs."""

    name: str

    async def register_joined(self, command: Register, connection: object) -> NoReturn:
        raise self._refusal()

    async def post(self, command: Signal, connection: object) -> NoReturn:
        raise self._refusal()

    async def deliver_posted(self) -> Delivery:
        return Delivery()

    def _refusal(self) -> NotTransactional:
        return NotTransactional(
            self.name, "this store can't take part in a transaction of yours: connection= is for PostgreSQL",
            "Leave it out, or have the work in the database that your transaction is in.",
        )  # fmt: skip
