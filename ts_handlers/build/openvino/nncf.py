"""INT8 by NNCF after training: SmoothQuant, ranges of activations from samples, bias correction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.engine import Material
from ts_handlers.build.methods.feeds import feeds
from ts_handlers.build.openvino.ir import with_embeddings
from ts_handlers.build.openvino.signal_stack import signal_stack_kept
from ts_handlers.build.quantize.graph import Feed
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.shapes import Array
from ts_handlers.telemetry import disable_telemetry

disable_telemetry()
import nncf  # noqa: E402 (its telemetry is off first)

MAX_FEEDS = 300
"""Batches of calibration texts; NNCF's statistics hardly move with more."""

MAX_TEXTS = 1200
"""Texts that are read for them, spread over the file."""


NOT_SMOOTHED = -1.0
"""As `smooth_quant_alpha`: for graphs that are smooth already."""


@dataclass(frozen=True, slots=True)
class NncfSettings:
    """How a graph is quantized.

    Attributes:
        is_transformer: Whether NNCF treats it as a transformer (which operators are left in float, and SmoothQuant).
        smooth_quant_alpha: How much of an outlier goes into the weights, 0 to 1; None: NNCF's own choice.
        has_full_range: Whether weights have 8 bits; 7 where sums of products saturate (`TargetCpu.has_vnni`).
    """

    is_transformer: bool = True
    smooth_quant_alpha: float | None = None
    has_full_range: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the build report."""
        return asdict(self)


def calibration_feeds(material: Material, samples: Iterable[ModelInput]) -> list[Feed]:
    """Return what the graph is fed for calibration texts, in small padded batches, without rows of the embedding table."""
    return list(islice(feeds(samples, material.source), MAX_FEEDS))


def int8_runtime(material: Material) -> dict[str, Any]:
    """Return `handler.runtime` of an INT8 model."""
    return {"precision": "int8", "float_precision": "bf16" if material.target.has_bf16 else "fp32"}


def quantize(model: Any, table: Array | None, fed: Sequence[Feed], settings: NncfSettings) -> Any:
    """Return the model with its products quantized by the ranges of their operands on what it is fed.

    Args:
        model: The graph.
        table: Its embedding table, where it was taken out: its rows are looked up feed by feed.
        fed: What ranges are measured on.
        settings: How.

    Raises:
        OperatorError: NNCF cannot quantize it.
    """
    with signal_stack_kept(), _nncf_errors():
        return nncf.quantize(
            model, _dataset(fed, table), advanced_parameters=_advanced(settings), **_options(fed, settings)
        )


def quantize_by_accuracy(
    model: Any,
    table: Array | None,
    fed: Sequence[Feed],
    labelled: Sequence[tuple[Feed, int]],
    max_drop: float,
    settings: NncfSettings,
) -> Any:
    """Return the quantized model, with as many products back in float as it takes to keep its accuracy.

    Args:
        model: A classifier with an output `logits`.
        table: Its embedding table, where it was taken out.
        fed: What ranges are measured on.
        labelled: What accuracy is measured on, one sample each, with the index of its label.
        max_drop: Share of accuracy that may be lost, 0 to 1.
        settings: How.

    Raises:
        OperatorError: NNCF cannot quantize it.
    """

    def accuracy(compiled: Any, samples: Iterable[tuple[Feed, int]]) -> tuple[float, list[float]]:
        right = [
            float(int(compiled(with_embeddings(feed, table))["logits"][0].argmax()) == label) for feed, label in samples
        ]
        return sum(right) / len(right), right

    with signal_stack_kept(), _nncf_errors():
        return nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=_dataset(fed, table),
            validation_dataset=nncf.Dataset(labelled),
            validation_fn=accuracy,
            max_drop=max_drop,
            advanced_quantization_parameters=_advanced(settings),
            **_options(fed, settings),
        )


def _dataset(fed: Sequence[Feed], table: Array | None) -> Any:
    return nncf.Dataset(fed, lambda feed: with_embeddings(feed, table))


def _options(fed: Sequence[Feed], settings: NncfSettings) -> dict[str, Any]:
    return {
        "subset_size": len(fed),
        "fast_bias_correction": True,
        "model_type": nncf.ModelType.TRANSFORMER if settings.is_transformer else None,
    }


def _advanced(settings: NncfSettings) -> Any:
    smooth = nncf.AdvancedSmoothQuantParameters()
    if settings.smooth_quant_alpha is not None:
        smooth = nncf.AdvancedSmoothQuantParameters(matmul=settings.smooth_quant_alpha)
    fix = nncf.OverflowFix.DISABLE if settings.has_full_range else nncf.OverflowFix.ENABLE
    return nncf.AdvancedQuantizationParameters(overflow_fix=fix, smooth_quant_alphas=smooth)


@contextmanager
def _nncf_errors() -> Iterator[None]:
    """Keep NNCF's notes out of the build's output (its progress bars stay), and say its errors in one line."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except (RuntimeError, ValueError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
        raise OperatorError(f"NNCF cannot quantize the model: {first_line(error)}") from error
    finally:
        logger.setLevel(level)
