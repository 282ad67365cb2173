"""A build's steps, as its user sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]


@contextmanager
def step(progress: Progress, what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    progress(f"{what} ...")
    started = time.perf_counter()
    yield
    progress(f"  done in {time.perf_counter() - started:.1f} s")
