"""Time as a port: what moment it is, and how to wait. Nothing else in Perdure reads a clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import msgspec


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One reading of the clock, on both scales.

    `wall_ms` is milliseconds since the epoch, UTC: due times and deadlines live on it. `boot_ms` is milliseconds
    since this machine booted, suspend included (CLOCK_BOOTTIME): it never steps, so local deadlines and SQLite
    leases live on it. `boot_id` says which boot: readings of two boots can't be compared.
    """

    wall_ms: int
    boot_ms: int
    boot_id: str


class Clock(Protocol):
    """Where every part of Perdure gets its time from."""

    def now(self) -> Moment:
        """Read both scales at once; callable from any thread."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds` on the boot scale."""
        ...


def read_boot_id() -> str:
    """The kernel's boot id, or `unknown-boot` where the platform has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown-boot"


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._boot_id = read_boot_id()
        self._boot_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> Moment:
        return Moment(time.time_ns() // 1_000_000, time.clock_gettime_ns(self._boot_clock) // 1_000_000, self._boot_id)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
