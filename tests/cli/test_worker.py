"""The worker as a process of its own: it runs, drains on a signal, and is left at once on a second."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.cli.running import Perdure, Start, ended, status, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_tells_what_became_of_each_run(
    number: signal.Signals, perdure: Perdure, start_process: Start
) -> None:
    for id, name, seconds in (("short-1", "sleep", "0.6"), ("long-1", "sleep", "60"), ("once-1", "once", "60")):
        assert perdure("start", "shop:host", name, "--input", seconds, "--id", id).exit_code == 0
    worker = start_process("worker", "shop:host", "--drain-grace", "1s", "--name", "w1", "--concurrency", "3")
    until(lambda: {status(perdure, id) for id in ("short-1", "long-1", "once-1")} == {"running"})
    worker.send_signal(number)
    code, out, err = ended(worker)
    assert code == 0, err
    assert sorted(out.splitlines()) == ["long-1\treleased", "once-1\tabandoned", "short-1\tfinished"]
    assert "draining: 3 runs, 1 s of grace" in err
    assert "worker w1" in err
    assert (status(perdure, "short-1"), status(perdure, "once-1")) == ("completed", "abandoned")


def test_a_second_signal_leaves_at_once_with_its_exit_code(perdure: Perdure, start_process: Start) -> None:
    perdure("start", "shop:host", "sleep", "--input", "60", "--id", "long-1")
    worker = start_process("worker", "shop:host", "--drain-grace", "30s")
    until(lambda: status(perdure, "long-1") == "running")
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    narration = worker.stderr
    until(lambda: "draining" in narration.readline())
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    code, _, _ = ended(worker)
    assert code == 143
    assert time.monotonic() - began < 5


def test_what_a_worker_says_at_its_end_is_one_document_with_json(perdure: Perdure, start_process: Start) -> None:
    perdure("start", "shop:host", "tick", "--id", "tick-1", "--db", "other.db")
    worker = start_process("worker", "shop:host", "--json", "--db", "other.db")
    until(lambda: status(perdure, "tick-1", "other.db") == "completed")
    worker.send_signal(signal.SIGTERM)
    code, out, _ = ended(worker)
    assert code == 0
    assert json.loads(out) == {"schema": "perdure.worker/1", "signal": "SIGTERM", "runs": [], "became": {}}


def test_start_with_wait_ends_as_the_process_does(perdure: Perdure, start_process: Start) -> None:
    worker = start_process("worker", "shop:host")
    result = perdure("start", "shop:host", "greet", "--input", '"you"', "--id", "g-1", "--wait", "--timeout", "30s")
    assert (result.exit_code, result.stdout) == (0, 'g-1\tcompleted\t"hello you"\n'), result.stderr
    worker.send_signal(signal.SIGTERM)
    code, _, err = ended(worker)
    assert code == 0, err


def test_start_with_wait_and_no_worker_times_out_and_says_how_to_get_one(perdure: Perdure) -> None:
    result = perdure("start", "shop:host", "tick", "--wait", "--timeout", "100ms")
    assert result.exit_code == 124
    assert "perdure worker shop:host" in result.stderr


def test_followed_events_come_as_they_happen_and_end_with_the_process(perdure: Perdure, start_process: Start) -> None:
    perdure("start", "shop:host", "sleep", "--input", "0.3", "--id", "s-1")
    follower = start_process("events", "s-1", "-f", "--json", "--db", "shop.db")
    worker = start_process("worker", "shop:host")
    code, out, _ = ended(follower)
    assert code == 0
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["process.started", "process.completed"]
    worker.send_signal(signal.SIGTERM)
    ended(worker)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_follower_which_says_where_to_go_on(
    number: signal.Signals, code: int, perdure: Perdure, start_process: Start
) -> None:
    perdure("start", "shop:host", "sleep", "--input", "60", "--id", "t-2")
    start_process("worker", "shop:host")
    follower = start_process("events", "t-2", "-f", "--db", "shop.db")
    assert follower.stdout is not None
    assert "process.started" in follower.stdout.readline()
    follower.send_signal(number)
    ended_with, _, err = ended(follower)
    assert ended_with == code
    assert "--after 1" in err


def test_a_worker_on_an_unusable_lease_time_exits_2(perdure: Perdure) -> None:
    result = perdure("worker", "shop:host", "--lease-ttl", "1ms")
    assert result.exit_code == 2
    assert "renew_every_ms" in result.stderr
