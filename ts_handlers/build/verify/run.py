"""Sends the finished archive raw requests, alone and together, and compares its answers with the source's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.build.check import length_advice
from ts_handlers.build.image_source import ImageSource
from ts_handlers.build.model_source import ModelSource
from ts_handlers.build.smoke import Answer, Trip, send
from ts_handlers.build.source import Source
from ts_handlers.build.steps import Progress
from ts_handlers.build.verify.compare import distance
from ts_handlers.build.verify.expected import Expected
from ts_handlers.build.verify.pictures import expected_pictures
from ts_handlers.build.verify.texts import expected_texts
from ts_handlers.config import HandlerConfig
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
        seconds: What it took.
        trip: What the archive did in its process.
    """

    num_requests: int
    largest_distance: float
    longest: int
    seconds: float
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
    started = time.perf_counter()
    expected = [] if config is None else _expected(source, config)
    singles = [expected[index * (len(expected) - 1) // (SINGLES - 1)] for index in range(SINGLES)] if expected else []
    asked = [*([item] for item in singles), *([expected] if expected else [])]
    trip = send(mar, [[request], *([item.payload for item in batch] for batch in asked)], timeout_s + TIMEOUT_S)
    _require_ok(
        trip, trip.answers[0][0], "a sample request", "; if its handler takes another form, give --sample-request"
    )
    distances: list[float] = []
    for batch, answers in zip(asked, trip.answers[1:], strict=True):
        for item, answer in zip(batch, answers, strict=True):
            _require_ok(trip, answer, item.shown)
            distances.append(distance(source.task, answer[1], item.answer))
    limit = max(LIMITS[precision], MASK_LIMIT if source.task == "image-segmentation" else 0)
    far = _judge(source, asked, distances, limit, trip, of_each=precision == "fp32")
    found = Verified(
        num_requests=len(expected),
        largest_distance=far,
        longest=max((item.length for item in expected), default=0),
        seconds=round(time.perf_counter() - started, 1),
        trip=trip,
    )
    if isinstance(source, Source) and config is not None and found.longest < (config.tokenizer.max_length or 0) * 0.9:
        progress(
            f"  note: compared up to {found.longest} of {config.tokenizer.max_length} tokens; longer texts take too long"
        )
    return found


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


def _judge(
    source: ModelSource,
    asked: Sequence[Sequence[Expected]],
    distances: Sequence[float],
    limit: float,
    trip: Trip,
    *,
    of_each: bool,
) -> float:
    """Refuse answers that are too far from the source's; return the largest distance.

    Raises:
        OperatorError: They are.
    """
    items = [item for batch in asked for item in batch]
    answers = [answer for batch in trip.answers[1:] for answer in batch]
    if not items:
        return 0.0
    far = max(distances)
    if of_each and far > limit:
        number = next(index for index, value in enumerate(distances) if value > limit)
        wrong = [item for item, value in zip(items, distances, strict=True) if value > limit]
        raise OperatorError(
            f"the archive answers otherwise than its source: {len(wrong)} of {len(items)} answers differ by more than "
            f"{limit:g}. To {items[number].shown} it answers {_shown(answers[number][1])}, and the source "
            f"{_shown(items[number].answer)}; {_advice(source, items, distances, limit, len(asked[-1]))}"
        )
    finite = [min(value, 1.0) for value in distances]
    if not of_each and statistics.mean(finite) > limit and source.task in _SCORED:
        raise OperatorError(
            f"the archive answers otherwise than its source: its answers differ by {statistics.mean(finite):.2g} in the "
            f"mean, allowed is {limit:g}; build it as fp32"
        )
    return far


def _advice(
    source: ModelSource, items: Sequence[Expected], distances: Sequence[float], limit: float, num_together: int
) -> str:
    """Say what the wrong answers have in common, and what to do."""
    is_text = isinstance(source, Source)
    lengths = [(item.length, value <= limit) for item, value in zip(items, distances, strict=True)]
    if advice := length_advice(source, lengths):
        return advice
    if is_text and all(value <= limit for value in distances[:-num_together]):
        return "alone they are right, in a batch they are not: build with --set bucketing.max_batch_size=1"
    return "build with another --backend, or serve it with a handler of your own"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"error"} and isinstance(value["error"], Mapping):
        return str(value["error"].get("message"))
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
