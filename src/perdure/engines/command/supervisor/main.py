"""The loop of the supervisor: it listens to the worker, to the outputs and to the kernel, and ends what is to end."""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from perdure.engines.command.supervisor.descent import (
    descendants,
    kill_all,
    programs_below,
    send,
    send_to_group,
    start_tick,
)
from perdure.engines.command.supervisor.entry import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, prctl, start_command
from perdure.engines.command.supervisor.streams import Bounds, Stream
from perdure.engines.command.supervisor.wire import Mouth, Spec, read_spec

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module `typing` costs half as much as everything else here together
    from typing import Literal

LINGER_S = 1.0
"""How long what the command left behind may take to end by itself, once the command has ended."""
LONGEST_AFTER_S = 2.0
"""How long it gets after SIGTERM then: the command's grace, but no more than this."""
PATIENCE_S = 5.0
"""How long what doesn't even end by SIGKILL is waited for: another user's, or stuck in the kernel."""
KILL_EVERY_S = 0.05
LARGEST_PIPE = 1_048_576


class Supervisor:
    """`stage` says how far the ending has come: nothing is to end, what is left lingers, it was told, it is killed."""

    def __init__(self, spec: Spec, mouth: Mouth) -> None:
        self._spec, self._mouth = spec, mouth
        self._me = os.getpid()
        self._stage: Literal["runs", "lingers", "told", "killed", "left"] = "runs"
        self._until = self._next_kill = 0.0
        self._told: set[int] = set()
        self._status: int | None = None
        self._childless = False
        self._wake, wake_end = os.pipe()
        for fd in (self._wake, wake_end):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # the worker decides; its end is noticed anyway
        self._worker_fd = self._watch_worker()
        self._control = 0

    def _watch_worker(self) -> int:
        """A descriptor that shows the worker's end even while a fork of it keeps the pipe open; -1 without pidfds."""
        if os.getppid() != self._spec.worker:
            self._mouth.worker_is_gone = True
            return -1
        try:
            found = os.pidfd_open(self._spec.worker)
        except (AttributeError, OSError):
            return -1
        self._mouth.worker_is_gone = os.getppid() != self._spec.worker  # it may be another's pid by now
        return found

    def run(self) -> None:
        is_subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
        if self._mouth.worker_is_gone:
            return
        try:
            self._pid, out, errors, trouble = start_command(self._spec, self._me)
        except OSError as error:  # no room for another program, or for its pipes
            self._mouth.say(b"N", b"fork", error.errno or 0)
            self._say_all()
            return
        if trouble:
            os.waitpid(self._pid, 0)
            self._mouth.say(b"N", *trouble.split(b" "))
            self._say_all()
            return
        self._mouth.say(b"S", self._pid, start_tick(self._pid), self._me, start_tick(self._me), int(is_subreaper))
        self._bounds = Bounds(self._spec)
        self._streams = [
            Stream(name, fd, self._bounds, self._mouth) for name, fd in ((b"stdout", out), (b"stderr", errors))
        ]
        while not (self._childless or self._stage == "left"):
            self._wait()
            self._kill(time.monotonic())
            self._collect()
            self._advance(time.monotonic())
        for stream in self._streams:
            self._drain(stream)
        self._say_end()
        self._say_all()

    # --- waiting ----------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until something is there or due; outputs are read on at any time, so the command never waits for us."""
        poll = select.poll()
        for fd in (self._wake, self._control, self._worker_fd, *(s.fd for s in self._streams if not s.closed)):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        if not self._mouth.is_empty:
            poll.register(1, select.POLLOUT)
        now = time.monotonic()
        due = [s.flush_at for s in self._streams if s.flush_at is not None]
        if self._stage != "runs":
            due.append(self._until if self._stage != "killed" else self._next_kill)
        ready = dict(poll.poll(max(0.0, min(due) - now) * 1000 + 1 if due else None))
        for stream in self._streams:
            if stream.fd in ready and not stream.closed:
                stream.read()
            if stream.flush_at is not None and stream.flush_at <= time.monotonic():
                stream.flush()
        if 1 in ready:
            self._mouth.write()
        if self._control in ready:
            self._hear()
        if self._worker_fd in ready:
            self._worker_has_gone()
        if self._mouth.worker_is_gone and self._stage in ("runs", "lingers"):
            self._worker_has_gone()

    def _hear(self) -> None:
        said = os.read(self._control, 16)
        if not said:
            self._worker_has_gone()
        elif b"k" in said:
            self._kill_from(time.monotonic())
        else:
            self._tell_to_end(self._spec.grace_s)

    def _worker_has_gone(self) -> None:
        self._mouth.worker_is_gone = True
        self._control = self._worker_fd = -1
        self._tell_to_end(self._spec.grace_s)

    def _collect(self) -> None:
        """Take note of every child that has ended, the command's own and what fell to us; no zombie stays."""
        try:
            while os.read(self._wake, 512):
                continue
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status

    # --- ending -----------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if self._stage == "runs" and self._status is not None:
            self._stage, self._until = "lingers", now + LINGER_S
        elif self._stage == "lingers" and now >= self._until:
            self._tell_to_end(min(self._spec.grace_s, LONGEST_AFTER_S))
        elif self._stage == "told" and now >= self._until:
            self._kill_from(now)
        elif self._stage == "killed" and now >= self._until:
            self._stage = "left"

    def _kill(self, now: float) -> None:
        if self._stage == "killed" and now >= self._next_kill:
            if self._status is None:
                send_to_group(signal.SIGKILL, self._pid)
            kill_all(self._me)
            self._next_kill = now + KILL_EVERY_S

    def _tell_to_end(self, grace_s: float) -> None:
        """SIGTERM to the command's process group, and to what has left the group; once each."""
        if self._stage not in ("runs", "lingers"):
            return
        self._stage, self._until = "told", time.monotonic() + grace_s
        below = programs_below(self._me)
        if self._status is None:  # until it was collected, its pid and so its group's number are its own
            send_to_group(signal.SIGTERM, self._pid)
            send_to_group(signal.SIGCONT, self._pid)  # what is stopped can't end
            below = {pid: about for pid, about in below.items() if about[0] != self._pid}
        send(signal.SIGTERM, below)
        send(signal.SIGCONT, below)

    def _kill_from(self, now: float) -> None:
        if self._stage not in ("killed", "left"):
            self._stage, self._until, self._next_kill = "killed", now + PATIENCE_S, now

    # --- the last words ---------------------------------------------------------------------------------------

    def _drain(self, stream: Stream) -> None:
        """What the pipe still holds; not more than a pipe can, if somebody outside keeps writing."""
        left = LARGEST_PIPE
        while not stream.closed and left > 0 and (taken := stream.read()):
            left -= taken
        stream.close()

    def _say_end(self) -> None:
        status = -1 if self._status is None else self._status
        how = (b"exit", os.WEXITSTATUS(status)) if os.WIFEXITED(status) else (b"signal", os.WTERMSIG(status))
        if self._status is None:
            how = (b"left", self._pid)
        out, errors = self._streams
        self._mouth.say(
            b"E", *how, out.lines, out.bytes, errors.lines, errors.bytes, self._bounds.stored, int(self._bounds.cut),
            self._bounds.reached, b" ".join(b"%d" % pid for pid in sorted(descendants(self._me))), errors.tail,
        )  # fmt: skip

    def _say_all(self) -> None:
        while not self._mouth.is_empty and not self._mouth.worker_is_gone:
            poll = select.poll()
            poll.register(1, select.POLLOUT)
            if self._worker_fd >= 0:
                poll.register(self._worker_fd, select.POLLIN)
            ready = dict(poll.poll())
            if self._worker_fd in ready:
                return
            self._mouth.write()


def main() -> None:
    prctl(PR_SET_NAME, b"perdure-command")
    for lifeline in sys.argv[2:]:  # ours until we end, and not the command's
        os.set_inheritable(int(lifeline), False)
    spec = read_spec()
    if spec is None:
        return
    mouth = Mouth()
    try:
        Supervisor(spec, mouth).run()
    except Exception:  # a bug: the worker is told, and kills by their mark what is left then
        import traceback  # here, as it loads much

        mouth.say(b"X", traceback.format_exc().encode("utf-8", "replace"))
        kill_all(os.getpid())
        sys.exit(1)
