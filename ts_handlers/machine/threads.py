"""Thread limits: every pool of the process gets the same number."""

from __future__ import annotations

import functools
import logging
import os
import sys

logger = logging.getLogger(__name__)

POOL_ENV = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables of thread pools, read when their library is loaded."""


def limit_threads(threads: int) -> None:
    """Give every pool of this process at most `threads` threads: torch, OpenMP, MKL, BLAS and tokenizers.

    Call it before the first parallel region. Libraries loaded later read the environment; those already loaded are told
    directly.
    """
    _limit_pools(threads)
    if "torch" in sys.modules:
        _limit_torch_interop(threads)


def change_threads(threads: int) -> None:
    """Give the pools of a running worker another number: OpenMP, MKL, BLAS and torch's intra-op pool.

    Torch's inter-op pool keeps what it started with, which is logged once, and so does the tokenizers' pool once it exists.
    """
    _limit_pools(threads)
    if "torch" in sys.modules:
        import torch

        if torch.get_num_interop_threads() != threads:
            _log_interop_stays(torch.get_num_interop_threads())


@functools.cache  # once a process: torch's number never changes again
def _log_interop_stays(kept: int) -> None:
    logger.info(
        "ts_handlers: torch keeps %d inter-op threads whatever the CPUs; its operators and every other pool follow. Restart "
        "the worker to change them",
        kept,
    )


def _limit_pools(threads: int) -> None:
    for name in POOL_ENV:
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    from threadpoolctl import threadpool_limits  # scans the loaded libraries, so only when a worker starts

    threadpool_limits(limits=threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _limit_torch_interop(threads: int) -> None:
    import torch

    if torch.get_num_interop_threads() == threads:
        return
    try:
        torch.set_num_interop_threads(threads)
    except RuntimeError as error:  # torch allows it once, before its first inter-op work
        logger.warning(
            "torch keeps %d inter-op threads instead of %d: %s",
            torch.get_num_interop_threads(),
            threads,
            str(error).splitlines()[0],
        )
