"""The stack that signal handlers run on, which OpenVINO changes on CPUs with wide registers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))

    @classmethod
    def of_this_thread(cls) -> SignalStack:
        """Return the stack that the kernel has now."""
        stack = cls()
        _sigaltstack(None, stack)
        return stack


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's signal stack back after a block that opens and closes several OpenVINO cores.

    Each core installs a stack of its own and puts back, when it is closed, the one it found. Cores that are not closed in
    the opposite order, as NNCF's, leave one that is freed, and the next signal (Ctrl-C, SIGTERM) is a segmentation fault.
    """
    before = SignalStack.of_this_thread()
    try:
        yield
    finally:
        _sigaltstack(before, None)


def _sigaltstack(new: SignalStack | None, old: SignalStack | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaltstack(new and ctypes.byref(new), old and ctypes.byref(old)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "sigaltstack")
