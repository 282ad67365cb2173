"""Which layers stay in float, so that the gate's limits hold at the least loss of time. Knows no engine.

An engine gives its layers, each with the time that keeping it in float costs, and a function that builds and judges the
model with some of them kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


def search(
    layers: Sequence[Layer],
    evaluate: Evaluate,
    limits: Limits,
    *,
    evaluate_alone: Evaluate,
    progress: Progress = print,
) -> tuple[tuple[str, ...], Quality]:
    """Find the fewest layers to keep; with none where that is enough, at one evaluation.

    Args:
        layers: All that may be kept.
        evaluate: Builds and judges the model as it will be served.
        limits: What passes; MARGIN of it is used.
        evaluate_alone: The same for ranking, where all but one layer are kept: on fewer samples, say.
        progress: Called with what was found.

    Returns:
        Names of the layers to keep, the most harmful for its cost first, and what the model is then worth.

    Raises:
        OperatorError: The limits do not hold even with all layers kept.
    """
    aim = with_margin(limits)
    quality = evaluate(frozenset())
    failures = aim.failures(quality)
    if not failures:
        return (), quality
    progress(f"  {'; '.join(failures)}: measuring each layer alone")
    ranked = rank(bundle(layers, MAX_RANKED), evaluate_alone)
    too_few, enough = 0, len(ranked)
    found = None
    while found is None or enough - too_few > 1:
        number = (too_few + enough) // 2 if enough - too_few > 1 else enough
        names = tuple(name for layer in ranked[:number] for name in layer.names)
        quality = evaluate(frozenset(names))
        failures = aim.failures(quality)
        progress(f"  {len(names)} layers kept: {'; '.join(failures) or 'enough'}")
        if not failures:
            enough, found = number, (names, quality)
        elif number == len(ranked):
            raise OperatorError(f"mixed precision with all {len(names)} layers kept: {'; '.join(failures)}")
        else:
            too_few = number
    return found


def rank(layers: Sequence[Layer], evaluate: Evaluate) -> list[Layer]:
    """Order layers by the harm that quantizing each alone does for each unit of time that it saves, worst first.

    Harm is the mean distance of the answers, which says more on few samples than accuracy does.
    """
    everything = frozenset(name for layer in layers for name in layer.names)
    losses = [max(0.0, 1 - evaluate(everything - set(layer.names)).mean_cosine) for layer in layers]
    order = sorted(range(len(layers)), key=lambda index: -losses[index] / max(layers[index].cost, 1e-9))
    return [layers[index] for index in order]


def bundle(layers: Sequence[Layer], most: int) -> list[Layer]:
    """Put neighbours together, as evenly as can be, until there are at most so many."""
    number = min(most, len(layers))
    bounds = [index * len(layers) // number for index in range(number + 1)] if number else [0]
    return [
        Layer(tuple(name for layer in group for name in layer.names), sum(layer.cost for layer in group))
        for group in (layers[start:end] for start, end in pairwise(bounds))
    ]


def with_margin(limits: Limits, share: float = MARGIN) -> Limits:
    """Return limits that allow a share of the loss only."""
    drop = limits.max_accuracy_drop
    return replace(
        limits,
        max_accuracy_drop=drop * share if drop > 0 else drop,
        min_mean_cosine=1 - (1 - limits.min_mean_cosine) * share,
        min_cosine=1 - (1 - limits.min_cosine) * share,
    )
