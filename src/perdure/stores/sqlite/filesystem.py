"""Which file system a path lies on, and whether SQLite's locks can be trusted there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def unsafe_filesystem(path: Path, mountinfo: str | None = None) -> str | None:
    """The name of the file system `path` lies on when its locks can't be trusted, else None.

    Unsafe are network, cluster, hypervisor-shared and user-space (FUSE) file systems: there a lock may be local to
    one kernel, the shared memory of SQLite's WAL may not be shared, and two kernels may open one file
    (sqlite.org/wal.html: all programs must be on one host). `path` need not exist; its symlinks are followed.

    `mountinfo` is text in the format of /proc/self/mountinfo (proc_pid_mountinfo(5)), read from there by default.
    None where the platform has no such file.
    """
    if mountinfo is None:
        mountinfo = _read_mountinfo()
    kind = _kind_at(path.resolve(), mountinfo)
    return kind if kind is not None and _is_unsafe(kind) else None


def _read_mountinfo() -> str:
    if sys.platform != "linux":
        return ""
    try:
        return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return ""


def _kind_at(path: Path, mountinfo: str) -> str | None:
    """The file system of the longest mount point that holds `path`; of two at one point, the later covers the other."""
    found: tuple[int, str] | None = None
    for line in mountinfo.split("\n"):  # not splitlines(): a mount point may hold U+0085 and the like
        place, separator, source = line.partition(" - ")
        fields = place.split(" ")
        if not separator or len(fields) < 6:
            continue
        mount_point = Path(_unescape(fields[4]))
        if path.is_relative_to(mount_point) and (found is None or len(mount_point.parts) >= found[0]):
            found = len(mount_point.parts), _unescape(source.split(" ")[0])
    return None if found is None else found[1]


def _unescape(field: str) -> str:
    r"""Undo the kernel's octal escapes: space \040, tab \011, newline \012, backslash \134."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _is_unsafe(kind: str) -> bool:
    if kind in {"fuse", "fuseblk"} or kind.startswith(("fuse.", "fuseblk.")):
        return True
    network = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "coda", "glusterfs", "lustre", "ncpfs", "ncp"}
    cluster = {"gfs", "gfs2", "ocfs2", "gpfs", "beegfs", "orangefs", "pvfs2", "panfs", "wekafs", "acfs"}
    hypervisor = {"9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "prl_fs_freeze", "drvfs"}
    return kind in network | cluster | hypervisor
