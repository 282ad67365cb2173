"""TorchServe's classes. This is the only file that imports them."""

from __future__ import annotations

import logging
from typing import Any

from ts.handler_utils.timer import timed
from ts.metrics.caching_metric import logger as metric_lines
from ts.metrics.metric_type_enum import MetricTypes
from ts.protocol import otf_message_handler

from ts_handlers.hosts.torchserve.codec import buffer_reads, keep_repeated_fields
from ts_handlers.hosts.torchserve.metrics import OneWrite, WorkerMetrics, silence_batches
from ts_handlers.optional import not_imported
from ts_handlers.telemetry import disable_telemetry

with not_imported("openvino.torch"):  # TorchServe looks for it, for torch.compile: 134 MB and 3 s of every worker
    disable_telemetry()  # it imports onnxruntime
    from ts.torch_handler.base_handler import BaseHandler

__all__ = ["BaseHandler", "join_worker", "timed"]


def join_worker(cache: Any, *, owns_process: bool) -> WorkerMetrics:
    """Return the worker's metrics; where the process is this worker's alone, make its messages and metric lines cheaper.

    Args:
        cache: `context.metrics`.
        owns_process: Whether the process is this worker's alone.
    """
    metrics = WorkerMetrics(cache, MetricTypes)
    if owns_process:
        OneWrite(metric_lines, lambda: metrics.is_sampled)
        silence_batches(logging.getLogger())
        buffer_reads(otf_message_handler)
        keep_repeated_fields(otf_message_handler)
    return metrics
