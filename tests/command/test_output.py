"""What a command writes is in the log within its bounds, and counted beyond them."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from perdure.engines.command.request import CommandResult
from perdure.host import Host
from perdure.hosting.handle import Handle
from tests.command.programs import PYTHON, SLEEPS, events_of, first_line, lines_of, open_host

MANY_BYTES = int(os.environ.get("PERDURE_TEST_OUTPUT_BYTES", "200000000"))
"""The labs run this with 1000000000."""


def test_output_far_beyond_the_bounds_is_counted_and_fills_no_memory() -> None:
    def highest_kib_of(pid: int) -> int:
        try:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return 0
        return int(found[1]) if found else 0

    async def highest_kib(host: Host, handle: Handle[CommandResult]) -> int:
        event = await host.driver.await_event(handle.id, "started")
        pid = int(re.search(rb'"supervisor_pid":(\d+)', event.payload)[1])  # type: ignore[index]
        highest, ended = 0, asyncio.ensure_future(handle.outcome())
        while not ended.done():
            highest = max(highest, highest_kib_of(pid))
            await asyncio.wait({ended}, timeout=0.02)
        return highest

    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell(f"yes 0123456789abcde | head -c {MANY_BYTES}")
            assert 0 < await highest_kib(host, handle) < 60_000
            result = await handle.result()
            assert (result.stdout_lines, result.stdout_bytes) == (MANY_BYTES // 16, MANY_BYTES)
            assert (result.stored_lines, result.truncated) == (10_000, True)
            assert await lines_of(handle) == 10_000 * ["0123456789abcde"]
            marks = [said for said in await events_of(handle, "output") if "bound" in said]
            assert [(mark["bound"], mark["truncated"]) for mark in marks] == [("max_lines", True)]

    asyncio.run(test())


def test_a_line_without_end_is_cut_and_marked() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("head -c 5000000 /dev/zero | tr '\\0' x", max_line_bytes=1_000)
            result = await handle.result()
            assert (result.stdout_lines, result.stdout_bytes, result.truncated) == (1, 5_000_000, True)
            (said,) = await events_of(handle, "output")
            assert said == {"stream": "stdout", "lines": [1_000 * "x"], "truncated": True, "sanitised": False}

    asyncio.run(test())


def test_the_bound_of_bytes_counts_both_streams() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("for i in 1 2 3; do echo 1234; done; echo 5678 >&2", max_output_bytes=12)
            result = await handle.result()
            assert (result.stdout_lines, result.stderr_lines) == (3, 1)
            assert (result.stored_lines, result.truncated) == (3, True)

    asyncio.run(test())


def test_output_exactly_at_its_bounds_is_whole() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("echo 12; echo 34", max_lines=2, max_line_bytes=2, max_output_bytes=4)
            assert await handle.result() == CommandResult(0, None, 2, 6, 0, 0, 2, False)
            assert await lines_of(handle) == ["12", "34"]

    asyncio.run(test())


def test_a_cut_never_halves_a_character() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["echo", "aéé"], max_line_bytes=4)
            await handle.result()
            (said,) = await events_of(handle, "output")
            assert (said["lines"], said["truncated"], said["sanitised"]) == (["aé"], True, False)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("written", "line"), [(r"a\377b", "a\ufffdb"), (r"a\000b", "a\ufffdb"), (r"\355\240\200", 3 * "\ufffd")]
)
def test_bytes_that_are_no_text_are_replaced_and_flagged(written: str, line: str) -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["printf", written])
            result = await handle.result()
            (said,) = await events_of(handle, "output")
            assert (said["lines"], said["sanitised"], said["truncated"]) == ([line], True, False)
            assert result.stdout_lines == 1

    asyncio.run(test())


def test_all_lines_come_in_order_in_few_events() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["seq", "1", "5000"])
            assert await lines_of(handle) == [str(number) for number in range(1, 5001)]
            assert 50 <= len(await events_of(handle, "output")) <= 80

    asyncio.run(test())


def test_empty_lines_and_a_last_line_without_newline_are_lines() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["printf", "\\n\\nend"])
            assert (await handle.result()).stdout_lines == 3
            assert await lines_of(handle) == ["", "", "end"]

    asyncio.run(test())


def test_output_can_be_followed_while_the_command_runs() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command([*PYTHON, SLEEPS])
            assert await first_line(host, handle) == "ready"
            assert await handle.status() == "running"
            await handle.cancel()

    asyncio.run(test())


def test_output_is_kept_in_a_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with open_host(f"sqlite:///{tmp_path}/work.db") as host:
            handle = await host.command(["seq", "1", "1000"])
            assert len(await lines_of(handle)) == 1000

    asyncio.run(test())
