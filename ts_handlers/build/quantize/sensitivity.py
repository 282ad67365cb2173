"""Which layers stay in float, so that the gate's limits hold at the least loss of time. Knows no engine.

An engine gives its layers, each with the time that keeping it in float costs, and a function that builds and judges the
model with some of them kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ts_handlers.build.gate import Limits, Quality
from ts_handlers.build.steps import Progress
from ts_handlers.errors import OperatorError

Evaluate = Callable[[frozenset[str]], Quality]
"""Names of the layers that are kept in float -> what the answers of the model are worth."""

MAX_RANKED = 48
"""Most layers that are measured one by one; of a deeper model neighbours are measured, and kept, together."""

MARGIN = 0.8
"""Share of the loss that the limits allow which the search may use: the gate judges on other samples."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One or more layers that are kept in float together.

    Attributes:
        names: Their names.
        cost: Time that it takes to keep them, in any unit: multiply-adds, say.
    """

    names: tuple[str, ...]
    cost: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What a search found.

    Attributes:
        names: Layers to keep in float, the most harmful for its cost first.
        quality: What the model is then worth, on the samples of the search.
        num_evaluations: Models that were built and judged.
    """

    names: tuple[str, ...]
    quality: Quality
    num_evaluations: int


def search(
    layers: Sequence[Layer],
    evaluate: Evaluate,
    limits: Limits,
    *,
    evaluate_alone: Evaluate | None = None,
    progress: Progress = print,
) -> Kept:
    """Find the fewest layers to keep; with none where that is enough, at one evaluation.

    Args:
        layers: All that may be kept.
        evaluate: Builds and judges the model as it will be served.
        limits: What passes; MARGIN of it is used.
        evaluate_alone: The same for ranking, where all but one layer are kept: on fewer samples, say; None: `evaluate`.
        progress: Called with what was found.

    Raises:
        OperatorError: The limits do not hold even with all layers kept.
    """
    counted = _Counted(evaluate)
    aim = with_margin(limits)
    quality = counted(frozenset())
    if not aim.failures(quality):
        return Kept((), quality, counted.num_evaluations)
    progress(f"  {'; '.join(aim.failures(quality))}: measuring each layer alone")
    alone = counted if evaluate_alone is None else _Counted(evaluate_alone)
    ranked = rank(bundle(layers, MAX_RANKED), alone)
    names, quality = _fewest(ranked, counted, aim, progress)
    num_evaluations = sum(judge.num_evaluations for judge in {counted, alone})
    return Kept(names, quality, num_evaluations)


def rank(layers: Sequence[Layer], evaluate: Evaluate) -> list[Layer]:
    """Order layers by the harm that quantizing each alone does for each unit of time that it saves, worst first."""
    everything = frozenset(name for layer in layers for name in layer.names)
    harms = [_loss(evaluate(everything - set(layer.names))) / max(layer.cost, 1e-9) for layer in layers]
    order = sorted(range(len(layers)), key=lambda index: -harms[index])
    return [layers[index] for index in order]


def bundle(layers: Sequence[Layer], most: int) -> list[Layer]:
    """Put neighbours together, as evenly as can be, until there are at most so many."""
    number = min(most, len(layers))
    bounds = [index * len(layers) // number for index in range(number + 1)] if number else [0]
    groups = [layers[start:end] for start, end in pairwise(bounds)]
    return [
        Layer(tuple(name for layer in group for name in layer.names), sum(layer.cost for layer in group))
        for group in groups
    ]


def with_margin(limits: Limits, share: float = MARGIN) -> Limits:
    """Return limits that allow a share of the loss only."""
    return Limits(
        max_accuracy_drop=limits.max_accuracy_drop * share
        if limits.max_accuracy_drop > 0
        else limits.max_accuracy_drop,
        min_mean_cosine=1 - (1 - limits.min_mean_cosine) * share,
        min_cosine=1 - (1 - limits.min_cosine) * share,
    )


def _fewest(
    ranked: Sequence[Layer], evaluate: Evaluate, limits: Limits, progress: Progress
) -> tuple[tuple[str, ...], Quality]:
    """Find by bisection how many of the ranked layers are enough; none of them is not."""
    too_few, enough = 0, len(ranked)
    found = None
    while enough - too_few > 1 or found is None:
        number = (too_few + enough) // 2 if enough - too_few > 1 else enough
        names = tuple(name for layer in ranked[:number] for name in layer.names)
        quality = evaluate(frozenset(names))
        failures = limits.failures(quality)
        progress(f"  {len(names)} layers kept: {'; '.join(failures) or 'enough'}")
        if not failures:
            enough, found = number, (names, quality)
        elif number == len(ranked):
            raise OperatorError(f"mixed precision with all {len(names)} layers kept: {'; '.join(failures)}")
        else:
            too_few = number
    return found


def _loss(quality: Quality) -> float:
    """Return what is lost: the mean distance of the answers, which says more on few samples than accuracy does."""
    return max(0.0, 1 - quality.mean_cosine)


class _Counted:
    """Counts evaluations, and makes none twice."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._known: dict[frozenset[str], Quality] = {}

    @property
    def num_evaluations(self) -> int:
        return len(self._known)

    def __call__(self, kept: frozenset[str]) -> Quality:
        if kept not in self._known:
            self._known[kept] = self._evaluate(kept)
        return self._known[kept]
