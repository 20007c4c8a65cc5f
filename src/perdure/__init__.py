"""Perdure: durable background processes for Python, as a library.

A process is a row; its append-only log is the truth; the rows that have not ended are the work queue.
"""

from perdure.engines.command.request import CommandResult
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process, Retry
from perdure.engines.python.journal_view import JournalEntry
from perdure.engines.python.signals import Signal
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import (
    PerdureError,
    ProcessAbandoned,
    ProcessCancelled,
    ProcessEnded,
    ProcessFailed,
)
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.hosting.portal import Portal
from perdure.hosting.sync_handle import SyncHandle
from perdure.model.events import Event
from perdure.model.live import Chunk
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Failed
from perdure.model.progress import Progress
from perdure.runtime.options import WorkerOptions

__version__ = "0.1.0"

__all__ = [
    "Abandoned", "Cancelled", "Chunk", "CommandResult", "Completed", "Event", "Failed", "Handle", "Host",
    "JournalEntry", "PerdureError", "Portal", "Process", "ProcessAbandoned", "ProcessCancelled", "ProcessContext",
    "ProcessEnded", "ProcessFailed", "Progress", "Retry", "Signal", "SyncContext", "SyncHandle", "WorkerOptions",
    "__version__",
]  # fmt: skip
