"""Rates over the number of workers: the table and the verdict. Pure functions and frozen dataclasses, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.report import table

FLOOR = 0.85
"""Throughput must not fall below this share of a side's best, however many workers there are."""


@dataclass(frozen=True, slots=True)
class ScalingBlock:
    """One block of load.

    Attributes:
        model: Which model.
        side: `ours` or `stock`.
        workers: How many served it.
        round: Counted from 1.
        requests_per_second: Rate of answers with 2xx.
        p99_ms: Latency; None without such answers.
        num_errors: Other outcomes.
    """

    model: str
    side: str
    workers: int
    round: int
    requests_per_second: float
    p99_ms: float | None
    num_errors: int


@dataclass(frozen=True, slots=True)
class Cell:
    """The blocks of one model, side and number of workers: medians over the rounds, and every error."""

    model: str
    side: str
    workers: int
    requests_per_second: float
    p99_ms: float | None
    num_errors: int
    of_best: float


def cells(blocks: Sequence[ScalingBlock]) -> list[Cell]:
    """Return a cell for each model, side and number of workers, in the order they were first measured."""
    groups: dict[tuple[str, str, int], list[ScalingBlock]] = {}
    for block in blocks:
        groups.setdefault((block.model, block.side, block.workers), []).append(block)
    rates = {key: statistics.median(block.requests_per_second for block in group) for key, group in groups.items()}
    found = []
    for (model, side, workers), group in groups.items():
        best = max(rate for (other, of_side, _), rate in rates.items() if (other, of_side) == (model, side))
        rate = rates[model, side, workers]
        latencies = [block.p99_ms for block in group if block.p99_ms is not None]
        found.append(
            Cell(
                model=model,
                side=side,
                workers=workers,
                requests_per_second=rate,
                p99_ms=statistics.median(latencies) if latencies else None,
                num_errors=sum(block.num_errors for block in group),
                of_best=rate / best if best else 0.0,
            )
        )
    return found


def scaling_table(found: Sequence[Cell], model: str) -> str:
    """Return one model's table: a row for each number of workers, the sides beside each other."""
    mine = [cell for cell in found if cell.model == model]
    sides = list(dict.fromkeys(cell.side for cell in mine))
    rows = [["workers", *(f"{side} {name}" for side in sides for name in ("req/s", "of best", "p99 ms", "errors"))]]
    for workers in sorted({cell.workers for cell in mine}):
        by_side = {cell.side: cell for cell in mine if cell.workers == workers}
        rows.append([str(workers), *(text for side in sides for text in _cell_texts(by_side.get(side)))])
    return f"{model}\n\n{table(rows)}"


def holds(found: Sequence[Cell], model: str, side: str = "ours") -> bool | None:
    """Say whether a side never falls below FLOOR of its best, without an error; None if it was not measured."""
    mine = [cell for cell in found if (cell.model, cell.side) == (model, side)]
    if not mine:
        return None
    return all(cell.of_best >= FLOOR and cell.num_errors == 0 for cell in mine)


def verdict(found: Sequence[Cell]) -> str:
    """Return one line for each model: ours at its lowest, as a share of its best."""
    lines = []
    for model in dict.fromkeys(cell.model for cell in found):
        held = holds(found, model)
        if held is None:
            continue
        ours = [cell for cell in found if (cell.model, cell.side) == (model, "ours")]
        lowest = min(ours, key=lambda cell: cell.of_best)
        errors = sum(cell.num_errors for cell in ours)
        lines.append(
            f"{model}: ours at its lowest ({lowest.workers} workers) gives {lowest.of_best:.0%} of its best, "
            f"{errors} errors: {'holds' if held else 'FAILS'} (at least {FLOOR:.0%}, without errors)"
        )
    return "\n".join(lines)


def scaling_json(blocks: Sequence[ScalingBlock]) -> dict[str, Any]:
    """Return blocks, cells and verdicts, ready for json.dumps."""
    found = cells(blocks)
    return {
        "blocks": [asdict(block) for block in blocks],
        "cells": [asdict(cell) for cell in found],
        "holds": {model: holds(found, model) for model in dict.fromkeys(cell.model for cell in found)},
    }


def _cell_texts(cell: Cell | None) -> tuple[str, str, str, str]:
    if cell is None:
        return ("-", "-", "-", "-")
    p99 = "-" if cell.p99_ms is None else f"{cell.p99_ms:.0f}"
    return (f"{cell.requests_per_second:.1f}", f"{cell.of_best:.0%}", p99, str(cell.num_errors))
