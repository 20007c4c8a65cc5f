"""A program of its own, started by a test: told what to do on its input, and heard line by line."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

import apsw

SCRIPTS = Path(__file__).parent / "scripts"
LONGEST_WAIT_S = 30.0


class Script:
    """`python SCRIPT ARGUMENTS`; killed at the latest when its block ends."""

    def __init__(self, script: str, *arguments: str, log: Path) -> None:
        self._log = log.open("ab")
        self._program = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.pid = self._program.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._log_path = log

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def hear(self) -> str:
        """The next line it says. Fails if it says nothing for too long, or has ended."""
        try:
            line = self._lines.get(timeout=LONGEST_WAIT_S)
        except queue.Empty:
            raise AssertionError(f"nothing was said for {LONGEST_WAIT_S} s; {self._errors()}") from None
        if line is None:
            raise AssertionError(f"the program has ended; {self._errors()}")
        return line

    def tell(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()

    def close(self) -> None:
        """End its input and wait for it."""
        assert self._program.stdin is not None
        self._program.stdin.close()
        assert self._program.wait(LONGEST_WAIT_S) == 0, self._errors()

    def pause_between_commits(self, database: Path) -> None:
        """Stop it (SIGSTOP) at a moment at which it doesn't hold the write lock: nobody could go on otherwise."""
        probe = apsw.Connection(str(database))
        try:
            while True:
                os.kill(self.pid, signal.SIGSTOP)
                _, status = os.waitpid(self.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status), self._errors()
                try:
                    probe.execute("BEGIN IMMEDIATE")
                except apsw.BusyError:
                    self.resume()
                    continue
                probe.execute("ROLLBACK")
                return
        finally:
            probe.close()

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _errors(self) -> str:
        return f"its errors: {self._log_path.read_text('utf-8', 'replace')[-2_000:]}"

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._program.poll() is None:
            self._program.kill()
            self._program.wait()
        self._reader.join()
        for pipe in (self._program.stdin, self._program.stdout, self._log):
            if pipe is not None and not pipe.closed:
                pipe.close()
