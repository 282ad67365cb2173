"""Sends the finished archive raw requests, alone and together, and compares its answers with the source's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.build.check import length_advice
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import Source
from ts_handlers.build.steps import Progress
from ts_handlers.build.verify.compare import Expected, distance
from ts_handlers.build.verify.pictures import expected_pictures
from ts_handlers.build.verify.smoke import Answer, Trip, send
from ts_handlers.build.verify.texts import expected_texts
from ts_handlers.config.sections import HandlerConfig
from ts_handlers.errors import OperatorError

LIMITS = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.25}
"""Largest distance of an answer from the source's, by the precision: of fp32 of each, of others the mean, since what they
cost is judged by the check and the gate."""

MASK_LIMIT = 0.01
"""Largest part of a mask that may differ: where two labels score alike, interpolation decides."""

TIMEOUT_S = 600
"""Seconds for all requests, beside what the archive may take to load."""

SINGLES = 6
"""Requests that are sent by themselves, the shortest, the longest and some between; and then all of them together."""

_SCORED = ("text-classification", "feature-extraction", "image-classification")
"""Tasks whose answers move with every number, so that their mean distance says something of a rounded model."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the comparison found.

    Attributes:
        num_requests: Requests compared.
        largest_distance: Of the answers, as `compare.distance` has it.
        longest: Tokens of the longest text, or pixels of the largest picture.
        trip: What the archive did in its process.
    """

    num_requests: int
    largest_distance: float
    longest: int
    trip: Trip


def verify(
    mar: Path,
    source: ModelSource,
    config: HandlerConfig | None,
    precision: str,
    request: Any,
    *,
    timeout_s: float = 120,
    progress: Progress = print,
) -> Verified:
    """Compare an archive with its source, end to end.

    Args:
        mar: The archive.
        source: The model it was made of.
        config: Its settings; None where its handler is a team's own, whose answers have a form of their own.
        precision: What it was built as.
        request: A request that it must answer with 200, whatever the answer.
        timeout_s: Seconds it may take to load.
        progress: Told how far the comparison goes.

    Raises:
        OperatorError: It does not load or answer, or answers otherwise than the source.
    """
    expected = [] if config is None else _expected(source, config)
    singles = [expected[index * (len(expected) - 1) // (SINGLES - 1)] for index in range(SINGLES)] if expected else []
    asked = [*([item] for item in singles), expected]
    batches = [[item.payload for item in batch] for batch in asked if batch]
    trip = send(mar, [[request], *batches], timeout_s + TIMEOUT_S)
    (first,), *others = trip.answers
    _require_ok(trip, first, "a sample request", "; if its handler takes another form, give --sample-request")
    compared = []
    for item, answer in zip([*singles, *expected], [answer for batch in others for answer in batch], strict=True):
        _require_ok(trip, answer, item.shown)
        compared.append((item, answer[1], distance(source.task, answer[1], item.answer)))
    _judge(source, compared, precision)
    longest = max((item.length for item in expected), default=0)
    if isinstance(source, Source) and config is not None and longest < (config.tokenizer.max_length or 0) * 0.9:
        progress(
            f"  note: compared up to {longest} of {config.tokenizer.max_length} tokens; longer texts take too long"
        )
    return Verified(len(expected), max((far for *_, far in compared), default=0.0), longest, trip)


def _expected(source: ModelSource, config: HandlerConfig) -> list[Expected]:
    if isinstance(source, Source):
        return expected_texts(source, config)
    return expected_pictures(source, config) if isinstance(source, ImageSource) else []


def _require_ok(trip: Trip, answer: Answer, what: str, advice: str = "") -> None:
    status, body = answer
    if status == 200:
        return
    logged = "".join(f"; it logged: {line}" for line in trip.log.strip().splitlines()[-1:])
    raise OperatorError(f"the archive answers {what} with {status}: {_shown(body)}{logged}{advice}")


def _judge(source: ModelSource, compared: Sequence[tuple[Expected, Any, float]], precision: str) -> None:
    """Refuse answers that are too far from the source's: those asked one by one come first.

    Raises:
        OperatorError: They are.
    """
    limit = max(LIMITS[precision], MASK_LIMIT if source.task == "image-segmentation" else 0)
    wrong = [found for found in compared if found[2] > limit]
    if not wrong:
        return
    if precision == "fp32":
        item, body, _ = wrong[0]
        raise OperatorError(
            f"the archive answers otherwise than its source: {len(wrong)} of {len(compared)} answers differ by more than "
            f"{limit:g}. To {item.shown} it answers {_shown(body)}, and the source {_shown(item.answer)}; "
            f"{_advice(source, [(item, far <= limit) for item, _, far in compared])}"
        )
    mean = statistics.mean(min(far, 1.0) for *_, far in compared)
    if mean > limit and source.task in _SCORED:
        raise OperatorError(
            f"the archive answers otherwise than its source: its answers differ by {mean:.2g} in the mean, allowed is "
            f"{limit:g}; build it as fp32"
        )


def _advice(source: ModelSource, judged: Sequence[tuple[Expected, bool]]) -> str:
    """Say what the wrong answers have in common, and what to do."""
    if advice := length_advice(source, [(item.length, is_right) for item, is_right in judged]):
        return advice
    if isinstance(source, Source) and all(is_right for _, is_right in judged[:SINGLES]):
        return "alone they are right, in a batch they are not: build with --set bucketing.max_batch_size=1"
    return "build with another --backend, or serve it with a handler of your own"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"error"} and isinstance(value["error"], Mapping):
        return str(value["error"].get("message"))
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
