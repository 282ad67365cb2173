"""Kubernetes' quantities: "1500m" CPUs, "2Gi" bytes."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: Fraction(1024**power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([a-zA-Z]{1,2})|[eE]([+-]?\d{1,3}))?")


def parse_quantity(text: Any) -> float:
    """Return a quantity as a number.

    Raises:
        ValueError: It is none.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or (match.group(2) or "") not in _SUFFIXES:
        raise ValueError(f"{text!r} is no quantity")
    exponent = Fraction(10) ** int(match.group(3) or 0)
    return float(Fraction(match.group(1)) * _SUFFIXES[match.group(2) or ""] * exponent)


def format_cpus(cpus: float) -> str:
    """Write CPUs in thousandths, the finest that Kubernetes takes and at least one, or whole: 1500m, 2."""
    thousandths = max(1, round(cpus * 1000))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"
