"""The supervisor by itself, spoken to as a worker does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from perdure.engines.command.link import BOOT, PACKAGE, Ended, Lines, Message, Started, decoded, spec_text
from perdure.engines.command.request import CommandRequest
from tests.command.programs import IGNORES_SIGTERM, PYTHON, SLEEPS, Programs, until

SUPERVISOR = (sys.executable, "-I", "-S", "-c", BOOT, str(PACKAGE))


def start(request: CommandRequest, programs: Programs, grace_ms: int) -> subprocess.Popen[bytes]:
    program = subprocess.Popen(SUPERVISOR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert program.stdin is not None
    program.stdin.write(spec_text(request, {"PATH": "/usr/bin:/bin", **programs.env}, grace_ms))
    program.stdin.flush()
    return program


def request(*argv: str, max_lines: int = 1_000_000, max_output_bytes: int = 67_108_864) -> CommandRequest:
    return CommandRequest(list(argv), {}, None, 0, max_lines, 8_192, max_output_bytes)


def heard(program: subprocess.Popen[bytes]) -> Message | None:
    assert program.stdout is not None
    head = program.stdout.read(5)
    return decoded(head[:1], program.stdout.read(int.from_bytes(head[1:], "big"))) if head else None


def all_heard(program: subprocess.Popen[bytes]) -> list[Message]:
    return list(iter(lambda: heard(program), None))


def test_it_loads_nothing_but_a_little_of_the_standard_library() -> None:
    boot = BOOT.removesuffix("main()") + "print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", boot, str(PACKAGE)], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "perdure.engines.command.supervisor.main" in loaded
    assert loaded & {"perdure.errors", "msgspec", "asyncio", "subprocess", "json", "re", "typing_extensions"} == set()


def test_a_command_never_waits_for_a_worker_that_does_not_listen(tmp_path: Path) -> None:
    programs = Programs()
    done = tmp_path / "done"
    script = f"head -c 20000000 /dev/zero | tr '\\0' x | fold -w 99; touch {done}"
    with start(request("sh", "-c", script), programs, 1_000) as program:
        asyncio.run(until(done.exists))
        messages = all_heard(program)
    last = messages[-1]
    assert isinstance(last, Ended)
    assert last.stdout_bytes >= 20_000_000
    assert sum(len(m.lines) for m in messages if isinstance(m, Lines)) == last.stored_lines == last.stdout_lines
    assert program.returncode == 0


def test_told_to_kill_it_gives_no_grace() -> None:
    programs = Programs()
    with start(request(*PYTHON, IGNORES_SIGTERM), programs, 3_600_000) as program:
        assert isinstance(heard(program), Started)
        assert isinstance(heard(program), Lines)
        assert program.stdin is not None
        program.stdin.write(b"s")
        program.stdin.flush()
        program.stdin.write(b"k")
        program.stdin.flush()
        last = all_heard(program)[-1]
        assert isinstance(last, Ended)
        assert (last.how, last.number) == ("signal", 9)
        assert programs.left() == set()


def test_the_end_of_its_input_is_a_stop() -> None:
    programs = Programs()
    with start(request(*PYTHON, SLEEPS), programs, 3_600_000) as program:
        assert isinstance(heard(program), Started)
        assert isinstance(heard(program), Lines)
        programs.alive()
        assert program.stdin is not None
        program.stdin.close()
        assert all_heard(program) == []
        assert program.wait() == 0
        assert programs.left() == set()


def test_told_only_a_part_of_what_to_run_it_runs_nothing(tmp_path: Path) -> None:
    programs = Programs()
    text = spec_text(request("touch", str(tmp_path / "ran")), {"PATH": "/usr/bin:/bin", **programs.env}, 0)
    for length in (0, 3, 4, len(text) - 1):
        ran = subprocess.run(SUPERVISOR, input=text[:length], capture_output=True, check=True)
        assert (ran.stdout, ran.stderr) == (b"", b"")
    assert not (tmp_path / "ran").exists()
