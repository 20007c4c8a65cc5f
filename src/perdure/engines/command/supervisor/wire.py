"""What the supervisor is told by the worker, and tells it."""

from __future__ import annotations

import os

CHUNK = 262_144


class Spec:
    """What to run: NUL-separated fields, none of which can hold a NUL."""

    def __init__(self, text: bytes) -> None:
        numbers, fields = text.split(b"\0")[:6], text.split(b"\0")[6:]
        self.worker, grace_ms, self.max_lines, self.max_line_bytes, self.max_bytes, count = map(int, numbers)
        self.grace_s = grace_ms / 1000
        self.cwd, self.argv = fields[0], fields[1 : count + 1]
        self.environment = dict(pair.split(b"=", 1) for pair in fields[count + 1 :])


def read_spec() -> Spec | None:
    """None if the worker was gone before it had said all."""
    text, size = b"", -1
    while len(text) != size:
        if size == -1 and len(text) == 4:
            text, size = b"", int.from_bytes(text, "big")
            continue
        chunk = os.read(0, (4 if size == -1 else size) - len(text))
        if not chunk:
            return None
        text += chunk
    return Spec(text)


class Mouth:
    """Frames for the worker. Never blocks: what the pipe doesn't take is kept, and what is kept has bounds."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self.worker_is_gone = False
        os.set_blocking(1, False)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def say(self, kind: bytes, *fields: bytes | int) -> None:
        if not self.worker_is_gone:
            body = b"\0".join(field if isinstance(field, bytes) else b"%d" % field for field in fields)
            self._waiting += kind + len(body).to_bytes(4, "big") + body
            self.write()

    def write(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(1, self._waiting[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self.worker_is_gone = True
            self._waiting.clear()
