"""The outputs of a command: lines within bounds, and counts beyond them."""

from __future__ import annotations

import os
import time

from perdure.engines.command.supervisor.wire import CHUNK, Mouth, Spec

BATCH_LINES, BATCH_BYTES, BATCH_S = 100, 65_536, 0.2
TAIL = 4_096


class Bounds:
    """What may be kept of both streams together; `reached` names the bound beyond which nothing is."""

    def __init__(self, spec: Spec) -> None:
        self.lines, self.bytes, self.line_bytes = spec.max_lines, spec.max_bytes, spec.max_line_bytes
        self.stored, self.cut = 0, False
        self.reached = b""


class Stream:
    """One output of the command: cut into lines within the bounds, and only counted beyond them."""

    def __init__(self, name: bytes, fd: int, bounds: Bounds, mouth: Mouth) -> None:
        self.name, self.fd, self._bounds, self._mouth = name, fd, bounds, mouth
        self.lines = self.bytes = 0
        self.tail = b""
        self.closed = False
        self.flush_at: float | None = None
        self._line, self._line_is_cut, self._open = bytearray(), False, False
        self._batch: list[bytes] = []
        self._batch_bytes, self._batch_is_cut = 0, False
        os.set_blocking(fd, False)

    def read(self) -> int:
        """Take one chunk; how many bytes it had. Zero: there is nothing now."""
        try:
            chunk = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return 0
        if not chunk:
            self.close()
            return 0
        self.bytes += len(chunk)
        self.tail = chunk[-TAIL:] if len(chunk) >= TAIL else (self.tail + chunk)[-TAIL:]
        at = 0
        while not self._bounds.reached and (end := chunk.find(b"\n", at)) != -1:
            self._extend(chunk[at:end])
            self._end_line()
            at = end + 1
        if self._bounds.reached:
            self.lines += chunk.count(b"\n", at)
        else:
            self._extend(chunk[at:])
        self._open = not chunk.endswith(b"\n")
        return len(chunk)

    def close(self) -> None:
        """The end: what stands without a newline is a line too."""
        if not self.closed:
            self.closed = True
            os.close(self.fd)
            if self._open:
                self._end_line()
            self.flush()

    def flush(self) -> None:
        if self._batch:
            self._mouth.say(b"L", self.name, int(self._batch_is_cut), b"\n".join(self._batch))
        self._batch, self._batch_bytes, self._batch_is_cut, self.flush_at = [], 0, False, None

    def _extend(self, piece: bytes) -> None:
        room = self._bounds.line_bytes - len(self._line)
        self._line += piece[:room]
        if len(piece) > room and not self._line_is_cut:
            self._line_is_cut = True
            while self._line and self._line[-1] & 0xC0 == 0x80:  # no half character at the cut
                self._line.pop()
            if self._line and self._line[-1] >= 0xC0:
                self._line.pop()

    def _end_line(self) -> None:
        self.lines += 1
        line, cut = bytes(self._line), self._line_is_cut
        self._line, self._line_is_cut = bytearray(), False
        bounds = self._bounds
        if bounds.reached:
            return
        if bounds.lines < 1 or bounds.bytes < len(line):
            bounds.reached = b"max_lines" if bounds.lines < 1 else b"max_output_bytes"
            self.flush()
            self._mouth.say(b"B", self.name, bounds.reached)
            return
        bounds.lines, bounds.bytes, bounds.stored = bounds.lines - 1, bounds.bytes - len(line), bounds.stored + 1
        self._batch.append(line)
        self._batch_bytes += len(line)
        self._batch_is_cut = self._batch_is_cut or cut
        bounds.cut = bounds.cut or cut
        if self.flush_at is None:
            self.flush_at = time.monotonic() + BATCH_S
        if len(self._batch) >= BATCH_LINES or self._batch_bytes >= BATCH_BYTES:
            self.flush()
