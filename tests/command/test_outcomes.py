"""Each way a command can end has its outcome, and nothing of it is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure.engines.command.request import CommandResult
from perdure.errors import RegistrationConflict
from perdure.model.outcomes import Failed
from tests.command.programs import PYTHON, SLEEPS, Programs, events_of, failure_of, first_line, lines_of, open_host


def test_exit_0_completes_with_the_counts_of_what_was_written() -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:
            handle = await host.command(["sh", "-c", "echo one; echo two; echo more >&2"], env=programs.env)
            assert await handle.result() == CommandResult(0, None, 2, 8, 1, 5, 3, False)
            assert await lines_of(handle) == ["one", "two"]
            assert await lines_of(handle, "stderr") == ["more"]
        assert programs.left() == set()

    asyncio.run(test())


def test_the_log_says_which_programs_ran_before_it_says_what_they_wrote() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["echo", "hello"])
            await handle.result()
            types = [event.type async for event in handle.events(follow=False)]
            assert types == ["process.started", "started", "output", "exited", "process.completed"]
            (started,) = await events_of(handle, "started")
            assert started["pid"] != started["supervisor_pid"]
            assert 0 < started["supervisor_start"] <= started["pid_start"]
            assert started["subreaper"] is True
            (exited,) = await events_of(handle, "exited")
            assert (exited["code"], exited["left"], exited["stdout_bytes"]) == ("exit:0", [], 6)

    asyncio.run(test())


def test_another_exit_code_fails_with_the_last_lines_of_its_errors() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["sh", "-c", "echo first >&2; echo last >&2; exit 3"], max_lines=0)
            code, message = await failure_of(handle)
            assert code == "exit:3"
            assert message.endswith("first\nlast")
            assert (await events_of(handle, "exited"))[0]["stored_lines"] == 0

    asyncio.run(test())


def test_death_by_a_signal_fails_with_the_signals_name() -> None:
    async def test() -> None:
        async with open_host() as host:
            handles = [await host.command(["sh", "-c", f"kill -{name} $$"]) for name in ("KILL", "TERM", "SEGV")]
            codes = [(await failure_of(handle))[0] for handle in handles]
            assert codes == ["signal:SIGKILL", "signal:SIGTERM", "signal:SIGSEGV"]

    asyncio.run(test())


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program", "/etc/passwd/below-a-file"])
def test_a_program_that_is_not_there_is_not_found(name: str) -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command([name])
            assert (await failure_of(handle))[0] == "not_found"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("text", "mode"), [("#!/bin/sh\n", 0o644), ("#!/no/such/interpreter\n", 0o755), ("echo no shell\n", 0o755)]
)
def test_a_file_that_is_no_program_is_not_executable_and_no_shell_gets_it(tmp_path: Path, text: str, mode: int) -> None:
    script = tmp_path / "script"
    script.write_text(text)
    script.chmod(mode)

    async def test() -> None:
        async with open_host() as host:
            by_path = await host.command([str(script)])
            assert (await failure_of(by_path))[0] == "not_executable"
            by_name = await host.command(["script"], env={"PATH": str(tmp_path)})
            assert (await failure_of(by_name))[0] == "not_executable"

    asyncio.run(test())


def test_arguments_beyond_what_the_system_takes_are_too_long() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["echo", "x" * 200_000])
            assert (await failure_of(handle))[0] == "too_long"

    asyncio.run(test())


def test_a_working_directory_is_entered_or_told_to_be_missing_or_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def test() -> None:
        async with open_host() as host:
            assert await lines_of(await host.command(["pwd"], cwd=str(tmp_path))) == [str(tmp_path)]
            missing = await host.command(["pwd"], cwd=str(tmp_path / "missing"))
            assert (await failure_of(missing))[0] == "cwd_not_found"
            file = await host.command(["pwd"], cwd=str(tmp_path / "file"))
            assert (await failure_of(file))[0] == "cwd_not_found"
            too_long = await host.command(["pwd"], cwd="/" + 300 * "x")
            assert (await failure_of(too_long))[0] == "cwd_unusable"

    asyncio.run(test())


def test_the_standard_input_is_empty() -> None:
    async def test() -> None:
        async with open_host() as host:
            result = await (await host.command(["cat"])).result()
            assert (result.exit_code, result.stdout_bytes) == (0, 0)

    asyncio.run(test())


def test_a_shell_runs_only_what_was_given_to_shell() -> None:
    async def test() -> None:
        async with open_host() as host:
            assert await lines_of(await host.shell("echo $((6 * 7))")) == ["42"]
            assert await lines_of(await host.command(["echo", "$((6 * 7))"])) == ["$((6 * 7))"]

    asyncio.run(test())


def test_a_passed_deadline_fails_the_process_and_ends_its_programs() -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:
            handle = await host.command([*PYTHON, SLEEPS], env=programs.env, deadline=0.3)
            outcome = await handle.outcome()
            assert isinstance(outcome, Failed)
            assert outcome.error.code == "deadline"
            assert programs.left() == set()

    asyncio.run(test())


def test_the_same_id_and_content_is_the_same_process_and_runs_once(tmp_path: Path) -> None:
    async def test() -> None:
        argv = ["sh", "-c", f"echo ran >> {tmp_path}/runs"]
        async with open_host() as host:
            first = await host.command(argv, id="once")
            second = await host.command(argv, id="once")
            assert await first.result() == await second.result()
            with pytest.raises(RegistrationConflict):
                await host.command([*argv, "more"], id="once")
        assert (tmp_path / "runs").read_text() == "ran\n"

    asyncio.run(test())


def test_signals_that_the_worker_ignores_are_not_ignored_by_the_command() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"])
            masks = {line.split(":")[0]: int(line.split(":")[1], 16) for line in await lines_of(handle)}
            assert masks == {"SigIgn": 0, "SigBlk": 0}

    asyncio.run(test())


def test_no_descriptor_of_the_worker_or_the_supervisor_reaches_the_command() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command(["ls", "-1", "/proc/self/fd"])
            assert await lines_of(handle) == ["0", "1", "2", "3"]  # 3 is the folder that ls itself reads

    asyncio.run(test())


def test_two_commands_run_side_by_side() -> None:
    async def test() -> None:
        async with open_host() as host:
            handles = [await host.command([*PYTHON, SLEEPS]) for _ in range(2)]
            assert [await first_line(host, handle) for handle in handles] == ["ready", "ready"]
            for handle in handles:
                await handle.cancel()

    asyncio.run(test())
