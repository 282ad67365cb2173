"""What a tree of processes uses, by psutil: CPU time, and the most memory it had at one moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import psutil

EVERY_S = 0.25
_MIB = 2**20


class Usage:
    """Watches a process and its descendants while a `with` block runs.

    Memory is the sum of the processes' proportional set sizes: a page that two share counts once. It is looked at four
    times a second. CPU time includes that of processes that came and went, as far as those that stayed waited for them.

    Args:
        root: The process; None: this one, whose own CPU time and memory do not count.

    Attributes:
        cpu_s: CPU time used in the block, in seconds.
        peak_mib: Most memory.
    """

    def __init__(self, root: int | None = None) -> None:
        self._root, self._counts_root = psutil.Process(root), root is not None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.cpu_s = 0.0
        self.peak_mib = 0.0

    def __enter__(self) -> Usage:  # noqa: PYI034  # typing.Self needs Python 3.11
        self._cpu_before = self._cpu()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(psutil.NoSuchProcess):  # a server that died is an error of its own
            self.cpu_s = self._cpu() - self._cpu_before

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.peak_mib = max(self.peak_mib, self._memory() / _MIB)

    def _members(self) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            if self._counts_root:
                yield self._root
            yield from self._root.children(recursive=True)

    def _memory(self) -> int:
        total = 0
        for process in self._members():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
                total += process.memory_full_info().pss
        return total

    def _cpu(self) -> float:
        times = self._root.cpu_times()
        total = times.children_user + times.children_system
        for process in self._members():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
                if process != self._root:
                    total += times.children_user + times.children_system
        return float(total)
