"""The results as a table for people and as JSON for machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.result import Ratio, Summary, ratio, summarize
from ts_handlers.cpu.features import parse_cpuinfo
from ts_handlers.operate.load.result import LoadResult, describe_errors


@dataclass(frozen=True, slots=True)
class Block:
    """One block of load in the order of the run.

    Attributes:
        round: Counted from 1; 0 is the search for the best stock setting.
        side: Name of the side under load.
        result: What the load generator saw.
        wall_seconds: From the block's start to its end, warm-up included.
        server_cpu_seconds: CPU of the loaded server in that time.
        idle_cpu_seconds: CPU of the other server meanwhile; None where there was none.
    """

    round: int
    side: str
    result: LoadResult
    wall_seconds: float
    server_cpu_seconds: float
    idle_cpu_seconds: float | None

    @property
    def cpu_ms_per_request(self) -> float | None:
        """CPU of the server per answer: moves less than the rate when others use the machine."""
        answered = self.result.num_answered
        return self.server_cpu_seconds * 1000.0 / answered if answered else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields and what follows from them, ready for json.dumps."""
        derived = {"cpu_ms_per_request": self.cpu_ms_per_request, "result": self.result.to_json()}
        return asdict(self) | derived


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    machine: Mapping[str, str]
    sides: Mapping[str, Mapping[str, str]]
    blocks: Sequence[Block]
    agreement: str | None = None

    def of(self, side: str) -> list[LoadResult]:
        """Return the measured blocks of a side, in order of rounds."""
        return [block.result for block in self.blocks if block.side == side and block.round > 0]

    def summaries(self) -> dict[str, Summary]:
        """Return the medians of each side that was measured."""
        return {side: summarize(self.of(side)) for side in self.sides if self.of(side)}

    def ratio(self) -> Ratio | None:
        """Return the second side over the first; None with one side only."""
        sides = list(self.summaries())
        return ratio(self.of(sides[1]), self.of(sides[0])) if len(sides) == 2 else None

    def to_json(self) -> dict[str, Any]:
        """Return everything, ready for json.dumps."""
        found = self.ratio()
        return {
            "machine": dict(self.machine),
            "sides": {name: dict(facts) for name, facts in self.sides.items()},
            "blocks": [block.to_json() for block in self.blocks],
            "summary": {side: asdict(summary) for side, summary in self.summaries().items()},
            "ratio": asdict(found) if found else None,
            "agreement": self.agreement,
        }

    def to_text(self) -> str:
        """Return the table of blocks, then medians and the ratio."""
        rows = [["round", "side", "req/s", "p50 ms", "p99 ms", "errors", "CPU ms/req", "CPUs used", "idle CPU s"]]
        rows += [block_row(block) for block in self.blocks]
        for side, summary in self.summaries().items():
            numbers = [_number(summary.requests_per_second), _number(summary.p50_ms), _number(summary.p99_ms)]
            rows.append(["median", side, *numbers, describe_errors(summary.errors), "", "", ""])
        lines = [table(rows)]
        found = self.ratio()
        if found:
            names = " / ".join(reversed(list(self.summaries())))
            lines.append(f"{names}: {found.median:.1f}x (rounds {found.low:.1f}x to {found.high:.1f}x)")
        if self.agreement:
            lines.append(self.agreement)
        return "\n".join(lines)


def block_row(block: Block) -> list[str]:
    """Return one row of the table."""
    result = block.result
    idle = "-" if block.idle_cpu_seconds is None else f"{block.idle_cpu_seconds:.2f}"
    return [
        str(block.round) if block.round else "search",
        block.side,
        _number(result.requests_per_second),
        _number(result.p50_ms),
        _number(result.p99_ms),
        describe_errors(result.errors),
        _number(block.cpu_ms_per_request),
        f"{block.server_cpu_seconds / block.wall_seconds:.1f}",
        idle,
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, columns aligned; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Say what this machine is, and whether it was busy before the run."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    return {
        "cpu": parse_cpuinfo(text).model_name or platform.machine(),
        "cpus_usable": str(len(os.sched_getaffinity(0))),
        "load_average_before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
