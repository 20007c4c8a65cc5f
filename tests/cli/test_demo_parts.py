"""The demo's parts: names that survive storage, the two walks, and a folder that changes while it is read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import canonical
from perdure.cli.demo.check import Stopped, independent_fingerprint
from perdure.cli.demo.host import FolderChanged, FolderRead, FolderToRead, combine, read_folder
from perdure.cli.demo.names import decode_path, encode_path, process_id
from perdure.cli.demo.walk import look, plan
from perdure.ids import check_process_id


class Context:
    """As much of a ProcessContext as reading a folder needs."""

    def __init__(self) -> None:
        self.checks = 0

    def check_cancelled(self) -> None:
        self.checks += 1


def read(path: bytes) -> FolderRead:
    folder = FolderToRead(encode_path(path), look(path).digest)
    return read_folder(Context(), folder)  # type: ignore[arg-type]  # it only asks whether it was cancelled


@given(st.binary(min_size=1, max_size=60))
def test_any_path_becomes_text_that_can_be_stored_and_comes_back(path: bytes) -> None:
    text = encode_path(path)
    canonical.encode(text)
    assert text.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    assert decode_path(text) == path


@given(st.binary(max_size=60), st.text(max_size=10))
def test_any_path_makes_an_id_that_is_allowed(path: bytes, listing: str) -> None:
    check_process_id(process_id(path, listing, ()))


def test_an_id_says_path_listing_and_what_is_left_out() -> None:
    ids = {
        process_id(b"/a/b", "1", ()), process_id(b"/a/b", "2", ()), process_id(b"/c/b", "1", ()),
        process_id(b"/a/b", "1", ("x",)),
    }  # fmt: skip
    assert len(ids) == 4
    assert all(id.startswith("b-") for id in ids)


def test_a_folder_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    folder = FolderToRead(encode_path(os.fsencode(tmp_path)), look(os.fsencode(tmp_path)).digest)
    (tmp_path / "new").write_text("x")
    with pytest.raises(FolderChanged) as refused:
        read_folder(Context(), folder)  # type: ignore[arg-type]  # as above
    assert refused.value.retryable is False


def test_a_folder_that_can_not_be_listed_is_read_as_such_and_a_vanished_one_has_changed(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path / "missing")
    assert look(missing).entries is None
    assert read(missing).unreadable == 1


def test_both_walks_agree_whatever_stands_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 3_000_000)
    (tmp_path / "a.txt").write_text("sorts before a/ only as bytes")
    (tmp_path / "a" / "link").symlink_to("deep", target_is_directory=True)
    (tmp_path / "skip").mkdir()
    root = os.fsencode(tmp_path)
    left_out = {root: ("skip",)}
    folders = plan(root, left_out)
    ours = combine([(folder.relative, _fingerprint(folder.path, folder.leave_out)) for folder in folders])
    theirs = independent_fingerprint(root, left_out, lambda _: None, threading.Event())
    assert [folder.relative for folder in folders] == [b".", b"a", b"a/deep", b"a/deep/er"]
    assert ours == theirs


def _fingerprint(path: bytes, leave_out: tuple[str, ...]) -> str:
    names = frozenset(os.fsencode(name) for name in leave_out)
    folder = FolderToRead(encode_path(path), look(path, names).digest, leave_out)
    return read_folder(Context(), folder).fingerprint  # type: ignore[arg-type]  # as above


def test_every_bit_of_content_counts_in_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a")
    root = os.fsencode(tmp_path)
    first = independent_fingerprint(root, {}, lambda _: None, threading.Event())
    (tmp_path / "file").write_bytes(b"b")
    assert independent_fingerprint(root, {}, lambda _: None, threading.Event()) != first


def test_a_check_that_is_no_longer_wanted_stops(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        independent_fingerprint(os.fsencode(tmp_path), {}, lambda _: None, stop)


def test_a_cancelled_reader_asks_between_files_and_chunks(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 3_500_000)
    context, path = Context(), os.fsencode(tmp_path)
    read_folder(context, FolderToRead(encode_path(path), look(path).digest))  # type: ignore[arg-type]  # as above
    assert context.checks >= 4


def test_a_reader_stops_where_it_is_told_to(tmp_path: Path) -> None:
    class Told(Context):
        def check_cancelled(self) -> None:
            raise InterruptedError

    (tmp_path / "file").write_text("x")
    path = os.fsencode(tmp_path)
    with pytest.raises(InterruptedError):
        read_folder(Told(), FolderToRead(encode_path(path), look(path).digest))  # type: ignore[arg-type]  # as above
