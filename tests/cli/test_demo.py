"""The demo, as a stranger runs it: whole, killed, stopped, repeated, and on trees that bite."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Perdure, Start, ended, until


def make_tree(top: Path, folders: int = 40, files: int = 3) -> None:
    for number in range(folders):
        folder = top / f"part{number % 4}" / f"folder{number:02d}"
        folder.mkdir(parents=True)
        for index in range(files):
            (folder / f"file{index}.txt").write_bytes(f"{number}/{index}\n".encode() * (index * 500 + 1))


def demo(perdure: Perdure, *arguments: str) -> dict[str, Any]:
    result = perdure("demo", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["matches"] is True
    assert found["fingerprint"] == found["check"]
    return found


def starts(database: str = "perdure.db") -> dict[str, int]:
    """How often each process was started, from the log."""
    with sqlite3.connect(database) as reader:
        rows = reader.execute(
            "SELECT p.id, count(e.row) FROM processes AS p"
            " LEFT JOIN events AS e ON e.row = p.row AND e.type = 'process.started' GROUP BY p.id"
        ).fetchall()
    reader.close()
    return dict(rows)


def completed(database: str = "perdure.db") -> set[str]:
    if not Path(database).exists():
        return set()
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as reader:
            found = {id for (id,) in reader.execute("SELECT id FROM processes WHERE status = 'completed'")}
    except sqlite3.OperationalError:  # its first transaction has not been seen yet
        return set()
    reader.close()
    return found


def test_a_second_run_finds_everything_done(perdure: Perdure) -> None:
    make_tree(Path("tree"))
    first = demo(perdure, "tree")
    assert first["folders"] == {
        "total": 45, "already_done": 0, "taken_over": 0, "given_back": 0, "queued_before": 0, "by_others": 0, "new": 45,
    }  # fmt: skip
    assert (first["files"], first["files_now"]) == (120, 120)
    second = demo(perdure, "tree")
    assert (second["folders"]["already_done"], second["folders"]["new"], second["files_now"]) == (45, 0, 0)
    assert second["fingerprint"] == first["fingerprint"]
    assert second["bytes"] == first["bytes"] == sum(f.stat().st_size for f in Path("tree").rglob("*.txt"))
    assert set(starts().values()) == {1}


def test_a_killed_run_is_taken_over_within_two_seconds_and_nothing_finished_is_done_again(
    perdure: Perdure, start_process: Start
) -> None:
    make_tree(Path("tree"), folders=80)
    victim = start_process("demo", "tree", "--slow", "120", "--concurrency", "4")
    until(lambda: len(completed()) >= 12)
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    done_before = completed()
    before = starts()
    assert 12 <= len(done_before) < 85

    second = start_process("demo", "tree", "--json", "--concurrency", "4")
    code, out, err = ended(second, 60)
    found = json.loads(out)

    assert code == 0, err
    assert found["matches"] is True
    assert found["folders"]["already_done"] == len(done_before)
    assert found["folders"]["taken_over"] >= 1
    assert found["first_takeover_s"] < 2
    assert f"already done by earlier runs: {len(done_before)} folders" in err
    after = starts()
    assert all(after[id] == 1 for id in done_before)
    begun = {id for id, count in before.items() if count and id not in done_before}
    assert {id for id, count in after.items() if count == 2} == begun
    assert _takeover_causes() == {"proved_dead"}
    assert perdure("doctor", "--verify").exit_code == 0


def _takeover_causes() -> set[str]:
    with sqlite3.connect("perdure.db") as reader:
        rows = reader.execute("SELECT payload FROM events WHERE type = 'process.started'").fetchall()
    reader.close()
    return {json.loads(payload)["takeover"]["cause"] for (payload,) in rows if "takeover" in json.loads(payload)}


def test_an_interrupted_run_says_what_is_kept_and_the_next_one_goes_on(perdure: Perdure, start_process: Start) -> None:
    make_tree(Path("tree"))
    stopped = start_process("demo", "tree", "--slow", "300", "--concurrency", "4")
    until(lambda: len(completed()) >= 4)
    began = time.monotonic()
    stopped.send_signal(signal.SIGINT)
    code, out, err = ended(stopped)
    assert (code, out) == (130, "")
    assert time.monotonic() - began < 5
    assert "done and kept" in err
    assert "Run the same command again" in err
    kept = len(completed())
    assert demo(perdure, "tree")["folders"]["already_done"] == kept


def test_a_changed_folder_is_done_anew_and_the_others_are_not(perdure: Perdure) -> None:
    make_tree(Path("tree"))
    first = demo(perdure, "tree")
    (Path("tree") / "part1" / "folder01" / "file0.txt").write_text("changed")
    (Path("tree") / "part2" / "new").mkdir()
    second = demo(perdure, "tree")
    assert (second["folders"]["new"], second["folders"]["already_done"]) == (2, 44)
    assert second["fingerprint"] != first["fingerprint"]


def test_a_touched_file_is_enough_to_do_its_folder_anew(perdure: Perdure) -> None:
    make_tree(Path("tree"), folders=4)
    first = demo(perdure, "tree")
    os.utime(Path("tree") / "part1" / "folder01" / "file0.txt", ns=(1, 1))
    second = demo(perdure, "tree")
    assert second["folders"]["new"] == 1
    assert second["fingerprint"] == first["fingerprint"]


def test_names_links_and_special_files_that_bite_are_fingerprinted_all_the_same(perdure: Perdure) -> None:
    top = Path("odd")
    (top / "empty").mkdir(parents=True)
    (top / "loop").mkdir()
    (top / "loop" / "up").symlink_to("..")
    (top / "self").symlink_to("self")
    (top / "broken").symlink_to("nowhere")
    (top / "line\nbreak").write_text("1")
    (top / "esc\x1b[31m").write_text("2")
    (top / "per%cent é 漢 \u202e").write_text("3")
    os.mkdir(os.path.join(b"odd", b"latin-\xe9"))
    Path(os.fsdecode(os.path.join(b"odd", b"latin-\xe9", b"\xff\xfe"))).write_bytes(b"4")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(top / "socket"))
    (top / "secret").write_text("5")
    (top / "secret").chmod(0)
    first = demo(perdure, "odd")
    assert first["folders"]["total"] == 4
    assert (first["links"], first["others"]) == (3, 2)
    assert first["files"] + first["unreadable"] == 5
    second = demo(perdure, "odd")
    assert second["folders"]["already_done"] == 4
    listed = perdure("ls", "-a").stdout
    assert "\x1b" not in listed
    assert perdure("doctor", "--verify").exit_code == 0


def test_its_own_database_below_the_path_is_passed_over(perdure: Perdure) -> None:
    make_tree(Path("tree"), folders=4)
    for _ in range(2):
        found = demo(perdure, ".", "--db", "tree/inside.db")
    assert found["folders"]["new"] == 0


@pytest.mark.parametrize("path", ["missing", "shop.py", "shop.py/below"])
def test_a_path_that_is_no_folder_exits_2_and_creates_nothing(path: str, perdure: Perdure) -> None:
    result = perdure("demo", path)
    assert result.exit_code == 2
    assert path in result.stderr
    assert not Path("perdure.db").exists()


def test_an_empty_folder_has_a_fingerprint(perdure: Perdure) -> None:
    Path("empty").mkdir()
    found = demo(perdure, "empty")
    assert (found["folders"]["total"], found["files"], found["bytes"]) == (1, 0, 0)


def test_two_runs_at_once_share_the_work_and_find_the_same(start_process: Start) -> None:
    make_tree(Path("tree"), folders=60)
    runs = [start_process("demo", "tree", "--json", "--slow", "30", "--concurrency", "3") for _ in range(2)]
    found = [ended(run, 60) for run in runs]
    assert [code for code, _, _ in found] == [0, 0], found
    assert len({json.loads(out)["fingerprint"] for _, out, _ in found}) == 1
    assert set(starts().values()) == {1}


def test_the_summary_in_a_pipe_is_tab_separated_and_plain(perdure: Perdure) -> None:
    make_tree(Path("tree"), folders=4)
    result = perdure("demo", "tree")
    facts = dict(line.split("\t") for line in result.stdout.splitlines())
    assert list(facts) == ["path", "folders", "files", "speed", "sha256", "check", "kept in"]
    assert facts["folders"] == "9: 9 new"
    assert "\x1b" not in result.stdout + result.stderr
