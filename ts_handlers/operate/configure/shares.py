"""Workers for models, in proportion to their weights. A pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence


def share_by_weight(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` in proportion to weights, at least one each: largest remainder among those that get more than one.

    Returns:
        Shares whose sum is max(total, number of weights).
    """
    shares = [1] * len(weights)
    large = list(range(len(weights)))
    while True:
        left = total - (len(weights) - len(large))
        sum_weights = sum(weights[index] for index in large)
        quotas = {index: left * weights[index] / sum_weights for index in large}
        small = {index for index in large if quotas[index] < 1}
        if not small:
            break
        large = [index for index in large if index not in small]
        if not large:
            return tuple(shares)
    for index in large:
        shares[index] = math.floor(quotas[index])
    missing = max(total, len(weights)) - sum(shares)
    by_remainder = sorted(large, key=lambda index: (shares[index] - quotas[index], index))
    for index in by_remainder[:missing]:
        shares[index] += 1
    return tuple(shares)
