"""A document pipeline over real files, as a plain script: one child process per file, with programs of the system.

Run it: python examples/documents.py [FOLDER] (without one: the docs of this checkout). Kill it and run it again: it
goes on. It needs wc and gzip.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure import Host, ProcessAbandoned, ProcessContext
from perdure.errors import ProcessAlreadyTerminal, UnknownProcess

host = Host("sqlite:///documents.db")
AT_ONCE = 8  # files in work; each takes a place of the worker's, and so do its commands


@dataclass
class Document:
    path: str
    sha256: str
    words: int
    compressed_bytes: int


def list_files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def number_from(id: str, argv: list[str]) -> int:
    """Run a program as a process of its own, and read the number it prints.

    A command is never run twice under one id. These do no harm if they are, so one whose worker was killed is given up,
    and the next id tried.
    """
    for attempt in range(1, 10):
        command = host.get_handle(f"{id}.{attempt}")
        try:
            await command.abandon(by="documents.py", reason="begun before, by a worker that may be gone")
        except UnknownProcess:
            await host.command(argv, id=command.id)
        except ProcessAlreadyTerminal:
            pass
        try:
            await command.result()  # raises ProcessFailed with its exit code and the end of its standard error
        except ProcessAbandoned:
            continue
        async for event in command.events(follow=False):
            if event.type == "output":
                return int(msgspec.json.decode(event.payload)["lines"][0].split()[0])
    raise RuntimeError(f"{argv} gave no number")


@host.process(recovery="rerunnable")
async def examine(ctx: ProcessContext, path: str) -> Document:
    compress = ["/bin/sh", "-c", 'gzip -nc -- "$1" | wc -c', "sh", path]  # the path is an argument, never shell text
    sha256, words, compressed = await ctx.gather(
        ctx.step(digest_of, path),
        ctx.step(number_from, f"{ctx.process_id}.words", ["wc", "-w", "--", path], key="words"),
        ctx.step(number_from, f"{ctx.process_id}.compressed", compress, key="compressed"),
    )
    return Document(path, sha256, words, compressed)


@host.process(recovery="rerunnable")
async def catalogue(ctx: ProcessContext, folder: str) -> list[Document]:
    paths = await ctx.step(list_files, folder)  # recorded: a later run works on the same list
    documents: list[Document] = []
    for begin in range(0, len(paths), AT_ONCE):
        batch = paths[begin : begin + AT_ONCE]
        children = await ctx.gather(*(ctx.start(examine, path, key=path) for path in batch))
        documents += await ctx.gather(*(child.result() for child in children))
        await ctx.emit("progress", {"done": len(documents), "of": len(paths)}, key=f"progress-{begin}")
    return documents


def state_of(folder: Path) -> str:
    """A name for what is in the folder now: as long as nothing is changed there, it is the same run."""
    listed = [(path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in list_files(str(folder))]
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:12]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs").resolve()
    with host.sync as portal:
        run = portal.start(catalogue, str(folder), id=f"catalogue-{state_of(folder)}")
        for event in run.events(timeout=60):
            if event.type == "progress":
                print("{done} of {of} files".format(**msgspec.json.decode(event.payload)), flush=True)
        documents = run.result(timeout=60)
    for document in documents:
        name = Path(document.path).relative_to(folder)
        print(f"{document.sha256[:12]} {document.words:7} words {document.compressed_bytes:7} bytes packed  {name}")
    print(f"{len(documents)} files, {sum(document.words for document in documents)} words")


if __name__ == "__main__":
    main()
