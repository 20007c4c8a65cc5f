"""Live output: what a running process says beside its log. Nobody keeps it; whoever isn't there may miss it."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import InvalidOption

LARGEST_CHUNK = 64 * 1024
"""Bytes of canonical JSON that one chunk may have."""
LONGEST_CHANNEL = 100

OWN_CHANNELS = "perdure."
"""Channels that begin so are ours."""
RUN_OVER = "perdure.run_over"
"""The last thing that a run says, if it has said anything."""
PROGRESS = "perdure.progress"
"""A hint that the progress row was written; the row is the truth."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One piece of live output.

    `attempt` and `fence` say which run published it: what an earlier fence published of a step that it did not finish
    is void, for the step runs again. `step` is the key of the step whose code published it, None outside of steps.
    `number` counts the chunks of this channel in this run, from 1. `missed` says how many of them were lost to this
    follower just before this one.
    """

    process_id: str
    channel: str
    payload: msgspec.Raw
    attempt: int
    fence: int
    number: int
    step: str | None = None
    missed: int = 0

    @property
    def value(self) -> Any:
        """What was published, decoded."""
        return msgspec.json.decode(self.payload)


def check_channel(channel: object) -> str:
    """The channel's name; raises InvalidOption for what can't be one."""
    if isinstance(channel, str) and 1 <= len(channel) <= LONGEST_CHANNEL and not channel.startswith(OWN_CHANNELS):
        if not channel.isprintable():
            raise InvalidOption("channel", channel, "printable characters")
        return channel
    allowed = f"1 to {LONGEST_CHANNEL} characters that don't begin with {OWN_CHANNELS!r}"
    raise InvalidOption("channel", channel, allowed)
