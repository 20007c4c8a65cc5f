from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.store.live_wires import LONGEST_WAIT_S

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


@pytest.fixture
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LONGEST_WAIT_S)
        assert not thread.is_alive(), thread.name


@pytest.fixture
def obeying_permissions() -> Callable[[], AbstractContextManager[None]]:
    """In this block, file permissions hold for this thread and those it starts, even if they are root's.

    Root passes them by two capabilities (capabilities(7)), which are taken out of the effective set meanwhile.
    """

    @contextmanager
    def obeying() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        before = _effective()
        _set_effective(before & ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH))
        try:
            yield
        finally:
            _set_effective(before)

    return obeying


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)


def _sets() -> ctypes.Array[ctypes.c_uint32]:
    """effective, permitted, inheritable of the lower 32 capabilities, then of the upper ones."""
    sets = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capget(_header(), sets) != 0:
        raise OSError(ctypes.get_errno(), "capget failed")
    return sets


def _effective() -> int:
    return _sets()[0]


def _set_effective(wanted: int) -> None:
    sets = _sets()
    sets[0] = wanted
    if ctypes.CDLL(None, use_errno=True).capset(_header(), sets) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
