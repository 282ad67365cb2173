"""Does the built model still say what the source says? Measured on sample inputs, before anything is archived."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ts_handlers.batching.bucketing import BatchPlan
from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput, pad_batch, split_batch
from ts_handlers.build.gate import measure_latencies
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import Source
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.runtime import Session
from ts_handlers.shapes import Array

TOLERANCES = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.25}
"""Largest relative error of a build by its precision. Cosine 0.99 is a relative error of about 0.14."""

JUDGED_TOLERANCE = 1.0
"""Of an engine that has passed the gate on the user's own samples: these here only find what is altogether wrong."""

WORST_SAMPLE_FACTOR = 3
"""How many times the tolerance a single sample may be off: one of small numbers is, one that is wrong is further."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How far the built model is from its source.

    Attributes:
        num_samples: Sample inputs compared.
        relative_error: Norm of the difference over norm of the source's outputs, all samples together.
        worst_relative_error: The same of the worst sample, whose numbers count as no smaller than the samples' usual ones:
            logits near zero are off by as much as others are, which is any number of times their own size.
        mean_cosine: Cosine between source's and build's outputs, mean over samples.
        max_abs_error: Largest difference of one number.
        tolerance: Largest relative error allowed.
    """

    num_samples: int
    relative_error: float
    worst_relative_error: float
    mean_cosine: float
    max_abs_error: float
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for the build report."""
        return asdict(self)


def check_build(
    source: ModelSource,
    session: Session,
    calls: ModelCalls,
    samples: Sequence[ModelInput],
    precision: str,
    tolerance: float | None,
) -> CheckResult:
    """Compare the built model, on batches of two, with its source on one unpadded sample at a time.

    Raises:
        OperatorError: The relative error is past the tolerance, or an output is not finite.
    """
    limit = TOLERANCES[precision] if tolerance is None else tolerance
    differences, norms, sizes, cosines = [], [], [], []
    largest = 0.0
    longest = max(samples, key=lambda item: item.num_positions)
    for sample in samples:
        try:
            expected = _source_outputs(source, sample)
        except OperatorError:
            raise
        except Exception as failure:  # models raise what they like past their positions
            instead = "set tokenizer.max_length to what the model takes, or " if sample.size is None else ""
            raise OperatorError(
                f"the source itself fails on a sample of {sample.describe_size()}: {type(failure).__name__}: "
                f"{all_lines(failure)}; {instead}correct the checkpoint"
            ) from failure
        try:
            outputs = _run_in_pair(source, session, calls, sample, longest)
        except Exception as failure:  # engines raise what they like
            raise OperatorError(
                f"the engine fails on a sample of {sample.describe_size()}, and the source does not: "
                f"{type(failure).__name__}: {all_lines(failure)}; take another --backend"
            ) from failure
        actual = _flatten(outputs, source.output_names)
        if not np.isfinite(actual).all():
            instead = "take another --backend" if precision == "fp32" else "build it as fp32"
            raise OperatorError(f"the built model returns numbers that are not finite; {instead}")
        differences.append(float(np.sum((actual - expected) ** 2)))
        norms.append(float(np.sum(expected**2)))
        sizes.append(expected.size)
        largest = max(largest, float(np.abs(actual - expected).max()))
        cosines.append(float(actual @ expected / max(np.linalg.norm(actual) * np.linalg.norm(expected), 1e-12)))
    error = float(np.sqrt(np.sum(differences) / max(np.sum(norms), 1e-12)))
    squares = np.divide(norms, sizes)
    usual = max(float(np.mean(squares)), 1e-12)
    worst = float(np.sqrt(np.max(np.divide(differences, sizes) / np.maximum(squares, usual))))
    if not (error <= limit and worst <= WORST_SAMPLE_FACTOR * limit):  # a tolerance that is nan allows nothing
        far = np.sqrt(np.divide(differences, np.maximum(norms, 1e-12)))
        lengths = [(sample.num_positions, bool(value <= limit)) for sample, value in zip(samples, far, strict=True)]
        instead = "build as fp32, or allow it with --tolerance"
        if precision == "fp32":
            instead = length_advice(source, lengths) or "take another --backend"
        raise OperatorError(
            f"the {precision} build differs from its source: relative error {error:.2g} on {len(samples)} samples, allowed "
            f"{limit:g}, and {worst:.2g} on the worst, allowed {WORST_SAMPLE_FACTOR * limit:g}; {instead}"
        )
    return CheckResult(len(samples), error, worst, float(np.mean(cosines)), largest, limit)


def length_advice(source: ModelSource, lengths: Sequence[tuple[int, bool]]) -> str | None:
    """Say what to do where texts are answered by their lengths; None where it is otherwise.

    Args:
        source: The model.
        lengths: Tokens of each text, and whether it is right.
    """
    if not isinstance(source, Source):
        return None
    right = [length for length, is_right in lengths if is_right]
    wrong = [length for length, is_right in lengths if not is_right]
    if not right or not wrong or max(right) >= min(wrong):
        if not source.remembers:
            return None
        return (
            f"{source.architecture} answers by the lengths of the texts before, since the model takes another path for long "
            "ones; take --backend onnx, and shorter texts with --set tokenizer.max_length=N"
        )
    return (
        f"texts of up to {max(right)} tokens are right and those from {min(wrong)} on are not, since the model takes "
        f"another path for them: take another --backend, or shorter texts with --set tokenizer.max_length={max(right)}"
    )


def measure_latency_ms(session: Session, arrays: dict[str, Array], repeats: int = 9) -> float:
    """Return the median time of one call, in milliseconds, after two calls of warm-up."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        session.run(arrays)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times[2:]) * 1000, 3)


def latency_table(session: Session, calls: ModelCalls, source: ModelSource) -> dict[str, float]:
    """Measure one and eight sequences of 24 tokens, in the calls that a worker makes of them, or usual images, in ms."""
    if isinstance(source, Source):
        length = min(24, source.max_length)
        arrays = {name: array[0] for name, array in source.call_arrays(1, length).items()}
        [found] = measure_latencies({"": (session, calls)}, [ModelInput(arrays, length)] * 8, rounds=9).values()
        return dict(found.ms_by_shape)
    table = {}
    for size in (1, 8):
        if size > (source.max_batch_size or size):
            continue
        arrays = {name: np.repeat(item.numpy()[:1], size, axis=0) for name, item in source.example().items()}
        shape = next(iter(arrays.values())).shape
        table["x".join(map(str, shape))] = measure_latency_ms(session, arrays)
    return table


def _run_in_pair(
    source: ModelSource, session: Session, calls: ModelCalls, sample: ModelInput, longest: ModelInput
) -> dict[str, Array]:
    """Run a sequence in one batch with the longest one, an image with itself; return its outputs without padding.

    A sequence that must not be padded runs by itself.
    """
    if sample.size is not None:
        pair = [sample, sample]
        outcome = calls.run(session, pair, calls.plan(session, pair))[1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
    if not (isinstance(source, Source) and source.can_pad and calls.max_batch_size > 1):
        [plan] = calls.plan_within([sample], 1)
        return calls.run_call(session, [sample], plan)[0]
    plan = BatchPlan((0, 1), longest.length)
    batch = pad_batch([sample, longest], plan, source.pad_values)
    return split_batch(session.run(batch.arrays), batch, source.sequence_outputs)[0]


def _source_outputs(source: ModelSource, sample: ModelInput) -> Array:
    outputs = source.run({name: array[None] for name, array in sample.arrays.items()})
    return _flatten({name: outputs[name][0] for name in source.output_names}, source.output_names)


def _flatten(outputs: dict[str, Array], names: Sequence[str]) -> Array:
    return np.concatenate([outputs[name].astype(np.float64).ravel() for name in names])
