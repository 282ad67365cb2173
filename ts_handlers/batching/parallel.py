"""Model calls at the same time: where a worker has several threads, calls side by side use them better than one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ParallelCalls:
    """Threads that do the same to many things; made when first needed, and anew when their number changes.

    Args:
        name: Name of the threads.
    """

    def __init__(self, name: str = "model-call") -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def for_each(self, function: Callable[[T], object], items: Iterable[T], num_parallel: int) -> None:
        """Apply a function to every item, `num_parallel` at a time; the first error is raised once all are done."""
        if num_parallel < 2:
            for item in items:
                function(item)
            return
        pending = [self._threads(num_parallel).submit(function, item) for item in items]
        errors = [error for error in (future.exception() for future in pending) if error is not None]
        if errors:
            raise errors[0]

    def _threads(self, size: int) -> ThreadPoolExecutor:
        if self._pool is None or self._size != size:
            if self._pool is not None:
                self._pool.shutdown()
            self._pool, self._size = ThreadPoolExecutor(size, thread_name_prefix=self._name), size
        return self._pool
