"""What a run measured: blocks, ratios between sides, and the table of them. No I/O, but for what the machine is."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.process import CpuTime


@dataclass(frozen=True, slots=True)
class Block:
    """One block of load on one side.

    Attributes:
        side: Its name.
        round: Counted from 1.
        requests_per_second: Answers with 2xx within the block.
        p50_ms: Median latency; None without such answers.
        p99_ms: The 99th percentile.
        num_answered: Answers of any status.
        errors: Other outcomes -> how many.
        client_cpu_s: CPU time of the load generator.
        cpu: CPU time of the side's processes.
        peak_mib: Their most memory together.
        start_s: Until it was ready.
        start_cpu_s: CPU time until then.
        gained: What its metrics counted in the block.
        more: What a side without a server says besides.
        labels: Its best label for each probe.
    """

    side: str
    round: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    num_answered: int
    errors: Mapping[str, int]
    client_cpu_s: float = 0.0
    cpu: CpuTime = field(default_factory=CpuTime)
    peak_mib: float = 0.0
    start_s: float = 0.0
    start_cpu_s: float = 0.0
    gained: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ratio:
    """A side's rate over another's, round by round: neighbours share the machine's mood.

    Attributes:
        numerator: A side.
        denominator: Another.
        aim: What the median should be at least; None: it is only told.
    """

    numerator: str
    denominator: str
    aim: float | None = None

    def of(self, blocks: Sequence[Block]) -> list[float]:
        """Return the ratio of each round that has both; empty where the denominator answered nothing in one."""
        rates = {(block.side, block.round): block.requests_per_second for block in blocks}
        pairs = [
            (rate, rates[self.denominator, number])
            for (side, number), rate in rates.items()
            if side == self.numerator and (self.denominator, number) in rates
        ]
        return [] if any(below == 0 for _, below in pairs) else [above / below for above, below in pairs]

    def is_missed(self, blocks: Sequence[Block]) -> bool:
        """Say whether it was measured and is below its aim."""
        found = self.of(blocks)
        return self.aim is not None and bool(found) and statistics.median(found) < self.aim

    def describe(self, blocks: Sequence[Block]) -> str:
        """Return a line."""
        found = self.of(blocks)
        name = f"{self.numerator} / {self.denominator}"
        if not found:
            return f"{name}: not measured"
        aim = "" if self.aim is None else f"; aim {self.aim:g}x: {'MISSED' if self.is_missed(blocks) else 'reached'}"
        return f"{name}: {statistics.median(found):.2f}x ({min(found):.2f} to {max(found):.2f}){aim}"


def agreement(blocks: Sequence[Block]) -> list[str]:
    """Say for how many probes each side has the first side's label: proof that they serve the same model."""
    asked = {block.side: block.labels for block in blocks if block.labels}
    first = next(iter(asked), "")
    return [
        f"{side}: the label of {first} for {sum(map(str.__eq__, labels, asked[first]))} of {len(labels)}"
        for side, labels in asked.items()
        if side != first
    ]


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of the values there are; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def by_side(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return each side's blocks, in the order they were first measured."""
    return {name: [block for block in blocks if block.side == name] for name in dict.fromkeys(b.side for b in blocks)}


def rate(blocks: Sequence[Block]) -> float:
    """Return the median rate."""
    return statistics.median(block.requests_per_second for block in blocks)


def sides_table(blocks: Sequence[Block]) -> str:
    """Return a row for each side: the rate in each round, then medians."""
    head = ["side", "requests/s in each round", "median", "p50 ms", "p99 ms", "errors", "CPU ms a request", "peak MiB"]
    rows = [[*head, "ready after s", "CPU s until then"]]
    for name, mine in by_side(blocks).items():
        cpu_ms = [block.cpu.all_s * 1000 / block.num_answered for block in mine if block.num_answered]
        rows.append(
            [
                name,
                ", ".join(f"{block.requests_per_second:.1f}" for block in mine),
                f"{rate(mine):.1f}",
                number(median([block.p50_ms for block in mine]), 1),
                number(median([block.p99_ms for block in mine]), 1),
                str(sum(sum(block.errors.values()) for block in mine)),
                number(median(cpu_ms), 2),
                number(median([block.peak_mib for block in mine]), 0),
                number(median([block.start_s for block in mine]), 1),
                number(median([block.start_cpu_s for block in mine]), 1),
            ]
        )
    return table(rows)


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits; `-` for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, columns aligned; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def machine() -> dict[str, str]:
    """Say what this machine is, and whether it was busy before the run."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus_usable": str(len(os.sched_getaffinity(0))),
        "load_average_before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    }
