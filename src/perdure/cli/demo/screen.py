"""Where the demo shows what it does, on stderr: bars for a person, a line now and then for a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from perdure.cli.text import counted, safe, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 5.0


class Screen(Protocol):
    """Some of these are called from threads."""

    def say(self, text: str) -> None: ...

    def looking(self, folders: int, files: int) -> None:
        """So many were found so far."""
        ...

    def working(self, folders: int, files: int, done_folders: int, done_files: int) -> None:
        """Work on so many begins, of which some are done."""
        ...

    def done(self, files: int, size: int) -> None:
        """One more folder, with so many files and bytes."""
        ...

    def checking(self, folders: int) -> None: ...

    def checked(self, folders: int) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was; idempotent."""
        ...


def make_screen() -> Screen:
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    def __init__(self) -> None:
        self._told_s = time.monotonic()
        self._folders = self._done = self._checked = 0

    def say(self, text: str) -> None:
        print(safe(text), file=sys.stderr, flush=True)

    def _now_and_then(self, text: str) -> None:
        if time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = time.monotonic()
            self.say(text)

    def looking(self, folders: int, files: int) -> None:
        self._now_and_then(f"looking: {counted(folders, 'folder')}, {counted(files, 'file')} so far")

    def working(self, folders: int, files: int, done_folders: int, done_files: int) -> None:
        self._folders, self._done = folders, done_folders

    def done(self, files: int, size: int) -> None:
        self._done += 1
        self._now_and_then(f"{self._done:,} of {counted(self._folders, 'folder')}")

    def checking(self, folders: int) -> None:
        self._checked = 0
        self.say("checking by an independent walk")

    def checked(self, folders: int) -> None:
        self._checked += folders
        self._now_and_then(f"checked {self._checked:,} of {counted(self._folders, 'folder')}")

    def close(self) -> None:
        return


class Bars:
    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._looking: TaskID | None = None
        self._folders: TaskID | None = None
        self._files: TaskID | None = None
        self._checking: TaskID | None = None
        self._bytes, self._began_s = 0, 0.0

    def _progress(self) -> Progress:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = (
                SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(bar_width=40),
                TextColumn("{task.fields[note]}", style="dim"),
            )  # fmt: skip
            self._bars = Progress(*columns, console=Console(file=sys.stderr, highlight=False), transient=True)
            self._bars.start()
        return self._bars

    def say(self, text: str) -> None:
        if self._bars is None:
            print(safe(text), file=sys.stderr, flush=True)
        else:
            self._bars.console.print(safe(text), markup=False, soft_wrap=True)

    def looking(self, folders: int, files: int) -> None:
        bars = self._progress()
        if self._looking is None:
            self._looking = bars.add_task("looking", total=None, note="")
        bars.update(self._looking, note=f"{counted(folders, 'folder')}, {counted(files, 'file')}")

    def working(self, folders: int, files: int, done_folders: int, done_files: int) -> None:
        bars = self._drop(self._looking)
        self._looking = None
        self._began_s, self._bytes = time.monotonic(), 0
        self._folders = bars.add_task("folders", total=folders, completed=done_folders, note="")
        self._files = bars.add_task("files", total=files, completed=done_files, note="")
        self.done(0, 0, folder=0)

    def done(self, files: int, size: int, folder: int = 1) -> None:
        bars = self._progress()
        assert self._folders is not None
        assert self._files is not None
        self._bytes += size
        bars.advance(self._folders, folder)
        bars.advance(self._files, files)
        for task in bars.tasks:
            if task.id in (self._folders, self._files):
                bars.update(task.id, note=self._note(task.id, task.completed, task.total or 0))

    def _note(self, id: TaskID, completed: float, total: float) -> str:
        text = f"{completed:,.0f} of {total:,.0f}"
        seconds = time.monotonic() - self._began_s
        return f"{text}, {size(self._bytes / max(seconds, 0.001))}/s" if id == self._files else text

    def checking(self, folders: int) -> None:
        bars = self._drop(self._folders, self._files)
        self._checking = bars.add_task("checking", total=folders, note="by an independent walk")

    def checked(self, folders: int) -> None:
        assert self._checking is not None
        self._progress().advance(self._checking, folders)

    def _drop(self, *tasks: TaskID | None) -> Progress:
        bars = self._progress()
        for task in tasks:
            if task is not None:
                bars.remove_task(task)
        return bars

    def close(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()
