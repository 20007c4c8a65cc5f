"""What running code says beside its log: live output that nobody keeps, and how far it has come."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure import canonical
from perdure.engines.python.execution import Execution
from perdure.errors import InvalidOption, InvalidPayload
from perdure.model.live import LARGEST_CHUNK, check_channel
from perdure.model.progress import LONGEST_NOTE, Progress, check_count

CHUNK_LIMITS = canonical.Limits(max_bytes=LARGEST_CHUNK)


class Beside:
    """Base of every context. Nothing here is a durable operation: it may be used at any time, in steps, in threads, and
    in asyncio tasks of one's own."""

    _execution: Execution

    def publish(self, channel: str, chunk: Any) -> None:
        """Say something to whoever follows this process now (`handle.follow`): a token, a line. It returns at once, is
        written nowhere and waits for nobody; a follower that is not there or too slow misses it.

        Meant for a step's code: followers are told the step's key. Between operations it is said again at each replay.
        `chunk` is any JSON value of at most 64 KiB; a run may use 100 channels. Raises InvalidPayload or InvalidOption.
        """
        check_channel(channel)
        if type(chunk) is not str:
            try:
                chunk = msgspec.to_builtins(chunk, str_keys=True, order="deterministic")
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidPayload("$", f"a value without a JSON form ({error})", "JSON values") from None
        payload = msgspec.Raw(canonical.encode(chunk, limits=CHUNK_LIMITS))
        self._execution.publish(channel, payload, self._execution.current_step)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this process has come: `done` of `total` (both 0 or more, in units of your own), and a note of at
        most 200 characters (more are cut off). It returns at once. The last value wins; it is written once a second at
        most, and with the end of the run at the latest. Raises InvalidOption.
        """
        check_count("done", done)
        if total is not None:
            check_count("total", total)
        if not isinstance(note, str):
            raise InvalidOption("note", note, "text")
        text, _ = canonical.sanitize(note, max_chars=LONGEST_NOTE)
        run, support = self._execution.run, self._execution.support
        said = Progress(done, total, text, run.record.state.attempt, run.lease.fence, support.registry.now().wall_ms)
        support.note_progress(run.lease.key, said)
