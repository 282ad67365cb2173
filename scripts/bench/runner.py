"""One loop for every benchmark: each side is started, loaded and ended in turn, A B A B; medians, ratios, a table, JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.process import BenchError, Usage, cli
from bench.report import Block, Ratio, agreement, machine, sides_table
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
    try:
        labels = [best_label(served.predict(*probe)) for probe in load.probes if served.send is None]
    except OSError as error:
        raise BenchError(f"{name} answers no probe: {error}; its server.log is below {load.folder}") from error
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
