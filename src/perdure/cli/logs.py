"""The `perdure` log on stderr: one safe line per record, the detail below it indented."""

from __future__ import annotations

import logging
import sys

from perdure.cli.text import safe


class _SafeLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n  ".join(safe(line) for line in super().format(record).splitlines())


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show what the runtime reports (faults, mostly) for as long as this program runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeLines("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("perdure")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
