"""Power is cut at random: whatever the disk kept of what was not synced, every acknowledged commit is there."""

from __future__ import annotations

from pathlib import Path

from lab.disk import Acknowledged, Deleted, Operation, Synced, Truncated, Written
from lab.images import images
from lab.power import FULL, NORMAL, run_power

LOG: list[Operation] = [
    Written("a", 0, b"one"),
    Synced("a"),
    Acknowledged("one"),
    Written("a", 0, b"two"),
    Written("a", 3, b"!" * 1024),
]


def test_every_acknowledged_commit_is_there_after_a_power_cut(tmp_path: Path) -> None:
    report = run_power(tmp_path, count=320, synchronous=FULL)
    assert report.lost == ()
    assert report.broken == ()
    assert report.images == 320
    assert report.acknowledged == 120


def test_without_a_sync_per_commit_the_same_power_cuts_lose_acknowledged_commits_and_break_nothing(
    tmp_path: Path,
) -> None:
    report = run_power(tmp_path, count=60, synchronous=NORMAL)
    assert len(report.lost) >= 5
    assert report.broken == ()


# --- the images are what a disk may hold -----------------------------------------------------------------------


def test_what_was_synced_is_in_every_image_and_what_was_not_is_in_some() -> None:
    contents = {image.files["a"][:3] for image in images(LOG, 200, seed=1) if "one" in image.acknowledged}
    assert contents == {b"one", b"two"}


def test_writes_are_torn_at_sectors_and_reach_the_disk_in_any_order() -> None:
    found = [image.files["a"] for image in images(LOG, 3_000, seed=1) if image.position == len(LOG)]
    without_the_first_sector, the_first_sector_alone = b"two" + bytes(509) + b"!" * 515, b"two" + b"!" * 509
    the_later_write_alone = b"one" + b"!" * 1024
    assert {without_the_first_sector, the_first_sector_alone, the_later_write_alone} <= {*found}


def test_a_truncation_that_was_not_synced_may_be_undone_and_a_deletion_is_not() -> None:
    log: list[Operation] = [
        Written("a", 0, b"long"),
        Synced("a"),
        Truncated("a", 1),
        Written("b", 0, b"x"),
        Synced("b"),
        Deleted("b"),
    ]
    found = [image.files for image in images(log, 200, seed=1) if image.position == len(log)]
    assert {files["a"] for files in found} == {b"long", b"l"}
    assert all("b" not in files for files in found)


def test_the_same_seed_cuts_at_the_same_places() -> None:
    assert [image.files for image in images(LOG, 20, seed=7)] == [image.files for image in images(LOG, 20, seed=7)]
