from __future__ import annotations

from pathlib import Path

import pytest

from perdure.stores.sqlite.filesystem import unsafe_filesystem


def mount(point: str, kind: str, optional: str = "shared:1") -> str:
    fields = ["36", "35", "98:0", "/root", point, "rw,noatime", *optional.split(), "-", kind, "/dev/source", "rw"]
    return " ".join(fields) + "\n"


@pytest.mark.parametrize(
    "kind",
    [
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs", "vboxsf"),
        *("fuse", "fuse.sshfs", "fuse.s3fs", "fuseblk", "fuseblk.ntfs"),
    ],
)
def test_a_network_or_user_space_file_system_is_named(kind: str) -> None:
    table = mount("/", "ext4") + mount("/mnt/share", kind)

    assert unsafe_filesystem(Path("/mnt/share/work.db"), table) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs", "fusectl"])
def test_a_local_file_system_is_safe(kind: str) -> None:
    assert unsafe_filesystem(Path("/mnt/share/work.db"), mount("/", "ext4") + mount("/mnt/share", kind)) is None


def test_the_longest_mount_point_decides() -> None:
    table = mount("/a/b", "ext4") + mount("/a", "nfs4") + mount("/", "xfs")

    assert unsafe_filesystem(Path("/a/b/work.db"), table) is None
    assert unsafe_filesystem(Path("/a/work.db"), table) == "nfs4"
    assert unsafe_filesystem(Path("/work.db"), table) is None


def test_a_mount_point_holds_whole_path_parts_only() -> None:
    assert unsafe_filesystem(Path("/database/work.db"), mount("/", "ext4") + mount("/data", "nfs")) is None


def test_of_two_mounts_at_one_point_the_later_decides() -> None:
    table = mount("/", "ext4") + mount("/data", "nfs") + mount("/data", "ext4")

    assert unsafe_filesystem(Path("/data/work.db"), table) is None


def test_octal_escapes_in_a_mount_point_are_undone() -> None:
    table = mount("/", "ext4") + mount(r"/my\040share\134x\011y", "cifs")

    assert unsafe_filesystem(Path("/my share\\x\ty/work.db"), table) == "cifs"


def test_a_unicode_line_break_in_a_mount_point_does_not_end_the_line() -> None:
    assert unsafe_filesystem(Path("/a\u0085b/work.db"), mount("/", "ext4") + mount("/a\u0085b", "nfs")) == "nfs"


@pytest.mark.parametrize("optional", ["", "shared:1", "shared:1 master:2 unbindable"])
def test_any_number_of_optional_fields_is_read(optional: str) -> None:
    assert unsafe_filesystem(Path("/data/work.db"), mount("/data", "nfs", optional)) == "nfs"


def test_a_symlink_is_followed_to_the_file_system_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    table = mount("/", "ext4") + mount(str(tmp_path.resolve() / "share"), "nfs")

    assert unsafe_filesystem(tmp_path / "link" / "not-yet.db", table) == "nfs"


@pytest.mark.parametrize("table", ["", "\n", "nonsense\n", "1 2 3 - nfs\n"])
def test_an_unreadable_table_names_nothing(table: str) -> None:
    assert unsafe_filesystem(Path("/work.db"), table) is None


def test_the_running_systems_own_table_is_read() -> None:
    assert unsafe_filesystem(Path("/proc/self/work.db")) is None
