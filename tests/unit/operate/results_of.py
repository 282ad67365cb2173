"""Results of searches that never ran."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.tune.results import Objective, Results, Setting, Trial

DEFAULT, MORE, LARGER = Setting(2, 1, 8, 1), Setting(4, 1, 8, 1), Setting(2, 1, 16, 1)
TRIAL_S = 10.0

Blocks = dict[Setting, Sequence["LoadResult | str"]]


def measured(rate: float, p99_ms: float = 50.0) -> LoadResult:
    """A load that was answered at so many requests per second."""
    return LoadResult(
        concurrency=16,
        rate=None,
        duration_s=5.0,
        num_ok=100,
        num_answered=120,
        errors={},
        first_error=None,
        requests_per_second=rate,
        mean_ms=p99_ms / 4,
        p50_ms=p99_ms / 4,
        p90_ms=p99_ms / 2,
        p99_ms=p99_ms,
        max_ms=p99_ms,
        client_cpu_s=0.1,
        num_late=0,
        timeline=(),
    )


def results_of(blocks: Blocks, objective: Objective | None = None, path: Path | None = None) -> Results:
    """Results whose trials took turns; a text is why one failed."""
    measured_on = {"model": "<echo> 1.0", "archive": "aa", "load": "16", "CPU": "A & B"}
    known = Results(path or Path("results.json"), measured_on, DEFAULT, objective or Objective())
    for turn in range(max(map(len, blocks.values()), default=0)):
        for setting, each in blocks.items():
            for block in each[turn : turn + 1]:
                outcome = (None, block) if isinstance(block, str) else (block, None)
                known.trials.append(Trial(setting, 6.5, TRIAL_S, *outcome))
    return known
