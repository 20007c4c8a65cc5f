"""The other programs on the same file: hints to and from them, who they are, and proof that one is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from perdure.clock import Clock
from perdure.errors import StoreUnavailable
from perdure.model.leases import DeathProof, Owner
from perdure.stores.owners import OwnerIdentity, identify, prove_death
from perdure.stores.sqlite.owner_locks import OwnerLock, state_of_lock, sweep_dead_files
from perdure.stores.sqlite.wake import Ringer, WakeSocket, sweep_dead_sockets

HINT_SPACING_S = 0.002
"""Hints that come closer together than this are answered by one read."""


class Peers:
    """One program's side of the folder beside the database (`<file>.owners`)."""

    def __init__(self, path: Path, clock: Clock, *, one_kernel: bool) -> None:
        self.folder = path.with_name(path.name + ".owners")
        self.live_folder = self.folder / "live"  # apart: who follows has no ringer list the other one again
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"sqlite:///{path}", f"the folder {self.folder} can't be made ({error.strerror})", "Check permissions."
            ) from error
        self._clock, self._one_kernel = clock, one_kernel
        self._locks: dict[str, OwnerLock] = {}
        self._me: OwnerIdentity = identify("", "", clock.now().boot_id, None)
        self._socket: WakeSocket | None = None
        self._ringer: Ringer | None = None
        self._listeners: list[Callable[[], None]] = []
        self._due: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_at_s = 0.0

    @property
    def has_hints(self) -> bool:
        """Whether hints reach this program; without them only the safety interval shows it what others did."""
        return self._socket is not None

    # --- owners -----------------------------------------------------------------------------------------------

    def enrol(self, owner: Owner) -> OwnerIdentity:
        try:
            lock = self._locks.get(owner.incarnation) or OwnerLock.take(self.folder, owner.incarnation)
        except OSError:  # no locks here: others must wait for the lease's expiry or prove the pid gone
            return identify(owner.name, owner.incarnation, self._clock.now().boot_id, None)
        self._locks[owner.incarnation] = lock
        return identify(owner.name, owner.incarnation, self._clock.now().boot_id, lock)

    def lifeline(self, incarnation: str) -> int | None:
        """The descriptor of the owner's lock: the lock is held until the last program that inherited it has ended."""
        lock = self._locks.get(incarnation)
        return None if lock is None else lock.fd

    def withdraw(self, owner: Owner) -> None:
        lock = self._locks.pop(owner.incarnation, None)
        if lock is not None:
            lock.release()

    def prove_death(self, owner: OwnerIdentity) -> DeathProof | None:
        """Proof that this owner is dead, if it can be had now; never about an owner of this program."""
        if owner.incarnation in self._locks:
            return None
        return prove_death(owner, self._me, partial(state_of_lock, self.folder), one_kernel=self._one_kernel)

    def dead_among(self, owners: Sequence[OwnerIdentity]) -> list[str]:
        """The incarnations of those that can be proved dead."""
        return [owner.incarnation for owner in owners if self.prove_death(owner) is not None]

    def sweep(self, known: Sequence[str]) -> int:
        """Remove what dead programs have left; `known`: the lock names of owners still written down."""
        mine = {lock.name for lock in self._locks.values()} | {f"{self.program}.sock", "writers.queue"}
        removed = sweep_dead_files(self.folder, mine | set(known))
        return removed + sweep_dead_sockets(self.live_folder, ".live")

    # --- hints ------------------------------------------------------------------------------------------------

    def ring(self) -> bool:
        """Tell the other programs that something was committed; whether there may be any. Writer thread only."""
        if self._ringer is None:
            try:
                self._ringer = Ringer(self.folder, self.program)
            except OSError:
                return True
        return self._ringer.ring() > 0 or not self.has_hints

    @property
    def program(self) -> str:
        """What this program's sockets are called."""
        return f"{self._me.pid}-{id(self):x}"

    def on_hint(self, loop: asyncio.AbstractEventLoop, listener: Callable[[], None]) -> Callable[[], None]:
        if self._socket is None:
            self._socket = WakeSocket.open(self.folder, self.program)
            if self._socket is not None:
                self._loop = loop
                loop.add_reader(self._socket.fileno(), self._hinted)
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _hinted(self) -> None:
        """Answer the first hint at once, and those that follow it closely by one more call."""
        assert self._socket is not None
        assert self._loop is not None
        self._socket.drain()
        if self._due is None:
            wait_s = self._told_at_s + HINT_SPACING_S - self._loop.time()
            self._due = self._loop.call_later(max(0.0, wait_s), self._tell)

    def _tell(self) -> None:
        assert self._loop is not None
        self._due, self._told_at_s = None, self._loop.time()
        for listener in tuple(self._listeners):
            listener()

    def forget_loop(self) -> None:
        """On the loop: stop listening for hints."""
        if self._due is not None:
            self._due.cancel()
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._ringer is not None:
            self._ringer.close()
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
