"""One loop for every benchmark: each side is started, loaded and ended in turn, A B A B; medians, ratios, a table, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.process import BenchError, CpuTime, Usage, cli
from bench.side import TIMEOUT_SECONDS, Served, Side

BUSY_LOAD = 0.5
"""Load average from which on a run is told that others blur its figures."""

_NONE_SUCCEEDED = 1
_GRACE_SECONDS = 2 * TIMEOUT_SECONDS
_LABEL_PROBES = 60


@dataclass(frozen=True, slots=True)
class Load:
    """The load of every block: the same program, bodies and clients for each side, on the same CPUs.

    Attributes:
        payloads: What `ts-handlers bench --payloads` takes.
        folder: Where its log goes.
        clients: Requests in flight, closed loop.
        seconds: Measured part of a block.
        warmup_s: Load before it, not measured.
        probes: Bodies with their type, whose best labels are compared between sides.
    """

    payloads: Path
    folder: Path
    clients: int = 16
    seconds: float = 20.0
    warmup_s: float = 5.0
    probes: Sequence[tuple[bytes, str]] = ()

    def send(self, url: str, seconds: float) -> Mapping[str, Any]:
        """Load a URL; return what was measured."""
        return bench(url, self.payloads, self.folder, "--concurrency", str(self.clients), seconds=seconds)


def bench(url: str, payloads: Path, folder: Path, *options: str, seconds: float) -> Mapping[str, Any]:
    """Run `ts-handlers bench` in a process of its own; return its result.

    Raises:
        BenchError: Nothing answers, or it prints no result.
    """
    words: list[str | Path] = [url, "--payloads", payloads, "--duration", str(seconds), "--warmup", "0", "--json"]
    found = cli(
        "bench",
        *words,
        *("--timeout", f"{TIMEOUT_SECONDS:g}", *options),
        log=folder / "load.log",
        timeout_seconds=seconds + _GRACE_SECONDS,
        good_codes=(0, _NONE_SUCCEEDED),
        is_shown=False,
    )
    try:
        result: Mapping[str, Any] = json.loads(found.splitlines()[-1])["result"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"the load generator printed no result: {found[-300:]!r}") from error
    return result


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


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Declare how much load there is and where files go."""
    standard = Load(Path(), Path())
    parser.add_argument("--clients", type=int, default=standard.clients, help="closed-loop clients (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=standard.seconds, help="measured part of a block (%(default)g)"
    )
    parser.add_argument("--warmup-seconds", type=float, default=standard.warmup_s, help="load before it (%(default)g)")
    parser.add_argument("--rounds", type=int, default=2, help="blocks of each side (%(default)s)")
    parser.set_defaults(**defaults)


class Run:
    """One run of a benchmark.

    Args:
        args: What `add_options` declares, and `work_dir` and `json`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.work_dir: Path = args.work_dir.resolve()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.machine = machine()
        if float(self.machine["load_average_before"]) > BUSY_LOAD:
            print(f"note: load average {self.machine['load_average_before']}; other work here blurs every number")

    def load(self, payloads: Path, probes: Sequence[tuple[bytes, str]] = ()) -> Load:
        """Return the load that the options ask for."""
        args = self.args
        return Load(payloads, self.work_dir, args.clients, args.seconds, args.warmup_seconds, probes[:_LABEL_PROBES])

    def measure(self, sides: Sequence[Side], load: Load, rounds: int | None = None) -> list[Block]:
        """Prepare all sides, then load each in turn, as often as there are rounds."""
        for side in sides:
            side.prepare()
        blocks = []
        for number in range(1, (rounds or self.args.rounds) + 1):
            for side in sides:
                print(f"round {number}, {side.name}: {load.seconds:g} s after {load.warmup_s:g} s ...", flush=True)
                with side.serve() as served:
                    blocks.append(measure(side.name, served, load if number == 1 else replace(load, probes=()), number))
                print(f"  {blocks[-1].requests_per_second:.1f}/s, errors {dict(blocks[-1].errors) or 0}", flush=True)
        return blocks

    def report(self, blocks: Sequence[Block], ratios: Sequence[Ratio] = (), text: str = "", **more: Any) -> int:
        """Print the table, the ratios and `text`, write all of it to --json; 1 if an aim was missed or errors came."""
        lines = [*(ratio.describe(blocks) for ratio in ratios), *agreement(blocks), text]
        print("\n".join(["", sides_table(blocks), *filter(None, lines)]))
        found = {f"{ratio.numerator} / {ratio.denominator}": ratio.of(blocks) for ratio in ratios}
        self.write_json(blocks=[asdict(block) for block in blocks], ratios=found, **more)
        return int(any(block.errors for block in blocks) or any(ratio.is_missed(blocks) for ratio in ratios))

    def write_json(self, **content: Any) -> None:
        """Write the options, the machine and what was found to the file of --json, if one was given."""
        if self.args.json is not None:
            options = {name: str(value) for name, value in vars(self.args).items()}
            text = json.dumps({"options": options, "machine": self.machine, **content}, indent=2)
            self.args.json.write_text(f"{text}\n", encoding="utf-8")
            print(f"written: {self.args.json}")


def measure(name: str, served: Served, load: Load, number: int) -> Block:
    """Warm a side up, load it, and say what it did and used meanwhile."""
    send = served.send or partial(load.send, served.url)
    labels = [best_label(served.predict(*probe)) for probe in load.probes if served.send is None]
    if load.warmup_s:
        send(load.warmup_s)
    before = served.counted()
    with Usage(served.pid) as usage:
        found = send(load.seconds)
    after = served.counted()
    return Block(
        side=name,
        round=number,
        **{key: found[key] for key in ("requests_per_second", "p50_ms", "p99_ms", "num_answered", "errors")},
        client_cpu_s=found.get("client_cpu_s", 0.0),
        cpu=usage.spent,
        peak_mib=usage.peak_mib,
        start_s=served.start_s,
        start_cpu_s=served.start_cpu_s,
        gained={metric: value - before[metric] for metric, value in after.items()},
        more=found.get("more", {}),
        labels=labels,
    )


def best_label(answer: Any) -> str:
    """Return the label of {label: score}, or the answer where the label is all of it."""
    return str(max(answer, key=answer.__getitem__)) if isinstance(answer, dict) else str(answer)


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
