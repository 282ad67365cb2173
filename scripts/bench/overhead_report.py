"""The results of `overhead` as tables for people and as JSON for machines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.attribution import IDLE, Round, in_process_parts_ms, largest, median_parts, served_parts_ms
from bench.report import table


def overhead_text(model: str, rounds: Sequence[Round], num_cpus: float) -> str:
    """Return the rounds, the median ratio, and where the CPU time of a request went."""
    modes = [block.mode for block in rounds[0].in_process]
    rows = [["round", *(f"in process, {mode} /s" for mode in modes), "TorchServe /s", "p99 ms", "errors", "ratio"]]
    for number, item in enumerate(rounds, start=1):
        rows.append(
            [
                str(number),
                *(f"{block.payloads_per_second:.1f}" for block in item.in_process),
                f"{item.served.requests_per_second:.1f}",
                "-" if item.served.p99_ms is None else f"{item.served.p99_ms:.0f}",
                str(item.served.num_errors),
                f"{item.ratio:.1%}",
            ]
        )
    ratio = statistics.median(item.ratio for item in rounds)
    return (
        f"{model}\n\n{table(rows)}\nmedian: TorchServe gives {ratio:.1%} of the limit in process\n\n"
        f"{_parts_table(rounds, num_cpus)}\n\nJava, CPU ms a request: {_threads_text(rounds[-1])}"
    )


def overhead_json(rounds: Sequence[Round], num_cpus: float) -> dict[str, Any]:
    """Return everything measured and what follows from it, ready for json.dumps."""
    return {
        "rounds": [asdict(item) | {"ratio": item.ratio} for item in rounds],
        "median_ratio": statistics.median(item.ratio for item in rounds),
        "served_parts_ms": _served_parts(rounds, num_cpus),
        "in_process_parts_ms": _in_process_parts(rounds, num_cpus),
    }


def _parts_table(rounds: Sequence[Round], num_cpus: float) -> str:
    served, in_process = _served_parts(rounds, num_cpus), _in_process_parts(rounds, num_cpus)
    names = [*(name for name in served if name != IDLE), IDLE]
    rows = [["CPU ms a request, median of the rounds", "TorchServe", "in process"]]
    rows += [[name, _ms(served.get(name)), _ms(in_process.get(name))] for name in names]
    rows.append([f"together ({num_cpus:g} CPUs / rate)", _ms(sum(served.values())), _ms(sum(in_process.values()))])
    return table(rows)


def _served_parts(rounds: Sequence[Round], num_cpus: float) -> dict[str, float]:
    return median_parts([served_parts_ms(item.served, num_cpus) for item in rounds])


def _in_process_parts(rounds: Sequence[Round], num_cpus: float) -> dict[str, float]:
    return median_parts([in_process_parts_ms(item.limit, num_cpus) for item in rounds])


def _threads_text(item: Round) -> str:
    kinds = largest(item.served.java_threads_s, item.served.num_requests)
    return ", ".join(f"{name} {value:.3f}" for name, value in kinds) or "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
