"""The code that docs/durable.md shows of live output and progress does what the page says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perdure import Handle, Host, ProcessContext, WorkerOptions

PAGE = (Path(__file__).parents[2] / "docs" / "durable.md").read_text("utf-8")
SECTION = PAGE.partition("## Live output and progress\n")[2].partition("\n## ")[0]
DEFINITION, LOOP, SHOWN = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)


async def stream(question: str) -> AsyncIterator[str]:
    for word in f"an answer to {question}".split(" "):
        yield word
        await asyncio.sleep(0.001)


def test_the_page_streams_an_answer_follows_it_and_finds_it_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(f"sqlite:///{tmp_path / 'work.db'}", options=WorkerOptions(drain_grace_ms=0))
    page: dict[str, Any] = {"host": host, "stream": stream, "ProcessContext": ProcessContext, "Handle": Handle}
    exec(f"{DEFINITION}\n{SHOWN}\nasync def type_it(run):\n{re.sub('(?m)^', '    ', LOOP)}", page)

    async def story() -> None:
        async with asyncio.timeout(60), host:
            run = await host.start(page["answer"], "everything", id="p")
            shown, _ = await asyncio.gather(page["show"](run), page["type_it"](run))
            assert shown == await run.result() == "ananswertoeverything"
            progress = await run.progress()
            assert progress is not None
            assert (progress.done, progress.total, progress.note) == (4, None, "answering")

    asyncio.run(story())
    assert capsys.readouterr().out == "ananswertoeverything"
