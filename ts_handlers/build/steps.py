"""A build's steps, as its user sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Progress = Callable[[str], None]

T = TypeVar("T")


@contextmanager
def step(progress: Progress, what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    progress(f"{what} ...")
    started = time.perf_counter()
    yield
    progress(f"  done in {time.perf_counter() - started:.1f} s")


def track(items: Sequence[T], unit: str) -> Iterable[T]:
    """Iterate with a progress bar, which is gone when it is done; none where nobody looks on (stderr is no terminal)."""
    bar: Iterable[T] = tqdm(items, unit=unit, leave=False, disable=None, mininterval=0.5, delay=2)
    return bar
