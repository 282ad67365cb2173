"""Several sides in one run: the blocks as a table for people and as JSON for machines, and ours over each of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.report import Block, block_row, table
from bench.result import Ratio, Summary, ratio, summarize
from ts_handlers.operate.load.result import LoadResult, describe_errors


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole run.

    Attributes:
        machine: What it ran on.
        sides: What a reader must know of each side, in the order of a round.
        blocks: Every block, in the order of the run.
        ours: Name of the side the others are compared with.
        agreement: On how many texts all sides gave the same answer; None with one side.
    """

    machine: Mapping[str, str]
    sides: Mapping[str, Mapping[str, str]]
    blocks: Sequence[Block]
    ours: str
    agreement: str | None = None

    def of(self, side: str) -> list[LoadResult]:
        """Return the measured blocks of a side, in order of rounds."""
        return [block.result for block in self.blocks if block.side == side and block.round > 0]

    def summaries(self) -> dict[str, Summary]:
        """Return the medians of each side that was measured."""
        return {side: summarize(self.of(side)) for side in self.sides if self.of(side)}

    def ratios(self) -> dict[str, Ratio]:
        """Return ours over each other side, by its name; without those that answered nothing."""
        measured = self.summaries()
        if self.ours not in measured:
            return {}
        found = {side: ratio(self.of(self.ours), self.of(side)) for side in measured if side != self.ours}
        return {side: value for side, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return everything, ready for json.dumps."""
        return {
            "machine": dict(self.machine),
            "sides": {name: dict(facts) for name, facts in self.sides.items()},
            "blocks": [block.to_json() for block in self.blocks],
            "summary": {side: asdict(summary) for side, summary in self.summaries().items()},
            "ratios": {f"{self.ours} / {side}": asdict(found) for side, found in self.ratios().items()},
            "agreement": self.agreement,
        }

    def to_text(self) -> str:
        """Return the table of blocks, then medians and ratios."""
        rows = [["round", "side", "req/s", "p50 ms", "p99 ms", "errors", "CPU ms/req", "CPUs used", "idle CPU s"]]
        rows += [block_row(block) for block in self.blocks]
        for side, summary in self.summaries().items():
            numbers = [_number(summary.requests_per_second), _number(summary.p50_ms), _number(summary.p99_ms)]
            rows.append(["median", side, *numbers, describe_errors(summary.errors), "", "", ""])
        lines = [table(rows)]
        for side, found in self.ratios().items():
            lines.append(f"{self.ours} / {side}: {found.median:.2f}x (rounds {found.low:.2f}x to {found.high:.2f}x)")
        if self.agreement:
            lines.append(self.agreement)
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
