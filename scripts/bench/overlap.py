"""One worker with all CPUs: what its model waits for is prepared before, within a batch, or for the next batch meanwhile."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contender import BATCH_SIZE, Ours
from bench.image_sides import PRECISIONS, OurModel
from bench.load import Load
from bench.models import make
from bench.pictures import make_large_pictures, make_pictures
from bench.report import machine, table
from bench.resnet import make_resnet, resnet_venv
from bench.resnet_model import BLOCKS_OF
from bench.shared import add_load_options, add_place_options, make_work_dir, run_benchmark, write_json

WAYS: Mapping[str, tuple[str, str, int]] = {
    "batch by batch": ("class Handler(Base):\n    interleaves = False\n", "", BATCH_SIZE),
    "within a batch": (
        "class Handler(Base):\n    interleaves = True\n\n    @property\n    def num_parallel_transforms(self):\n"
        "        return self.share.threads\n",
        "",
        BATCH_SIZE,
    ),
    "batches side by side": (
        "from side_by_side import SideBySide\n\n\nclass Handler(SideBySide, Base):\n    interleaves = False\n",
        "asyncCommunication: true\n",
        1,
    ),
}
"""Way -> the class in the archive's handler.py, what is added to its model-config.yaml, and TorchServe's batchSize."""

_EXTRA = Path(__file__).with_name("side_by_side.py")
_EXIT_ERRORS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a request failed, 2 for what the caller must put right."""
    args = _parser().parse_args(argv)
    return run_benchmark("overlap", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/overlap",
        description=__doc__,
        epilog="`batch by batch`: texts are tokenized, or pictures decoded, before the first call of the model. `within a "
        "batch`: the model is called as soon as a call can be filled. `batches side by side`: TorchServe's "
        "asyncCommunication, whose requests the handler puts into batches, two at a time. A fresh server for each block, "
        "the ways in turns.",
    )
    parser.add_argument(
        "--models", nargs="+", choices=["minilm", *PRECISIONS], default=["int8", "fp32", "minilm"],
        help="precisions of ResNet-152, and minilm in INT8 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--layers", type=int, choices=tuple(BLOCKS_OF), default=152, help="of the ResNet (default: %(default)s)"
    )
    parser.add_argument("--large", action="store_true", help="pictures of 12 megapixels, as phones make them")
    add_load_options(parser, warmup_seconds=6.0, rounds=2)
    add_place_options(parser)
    return parser


@dataclass(frozen=True, slots=True)
class OverlapBlock:
    """One block of load.

    Attributes:
        model: minilm, or a precision of the ResNet.
        way: One of `WAYS`.
        requests_per_second: Rate of answers with 2xx.
        p99_ms: Latency; None without such answers.
        num_errors: Other outcomes.
    """

    model: str
    way: str
    requests_per_second: float
    p99_ms: float | None
    num_errors: int


def _run(args: argparse.Namespace) -> int:
    facts, work_dir = machine(), make_work_dir(args)
    blocks = []
    for model in args.models:
        archive, payloads = _model(model, args.layers, work_dir)
        if args.large and model != "minilm":
            payloads = make_large_pictures(work_dir)
        sides = {way: _side(archive, way, work_dir / f"overlap-{model}-{way.replace(' ', '-')}") for way in WAYS}
        load = Load(payloads, args.clients, args.warmup_seconds, work_dir)
        for number in range(1, args.rounds + 1):
            for way, ours in sides.items():
                with ours.serve(1) as served:
                    result = load.run(served.url, args.seconds)
                blocks.append(OverlapBlock(model, way, result.requests_per_second, result.p99_ms, result.num_errors))
                print(f"round {number}, {model}, {way}: {result.requests_per_second:.1f} req/s", flush=True)
    print(f"\n{overlap_table(blocks)}")
    write_json(args, {"machine": facts, "blocks": [asdict(block) for block in blocks]})
    return _EXIT_ERRORS if any(block.num_errors for block in blocks) else 0


def _model(name: str, layers: int, work_dir: Path) -> tuple[Ours, Path]:
    """Return the archive as `ts-handlers build` makes it, and what to send."""
    if name == "minilm":
        model = make(name, work_dir, None)
        ours, payloads = model.ours, model.payloads
    else:
        payloads = make_pictures(work_dir / "pictures")
        files = make_resnet(resnet_venv(work_dir), work_dir, payloads, layers)
        ours = OurModel(files, payloads, name, work_dir / f"ours-{files.weights.parent.name}-{name}").ours
    if not ours.mar.is_file():
        ours.prepare()
    return ours, payloads


def _side(ours: Ours, way: str, folder: Path) -> Ours:
    """Put another handler into the archive."""
    handler, config, batch_size = WAYS[way]

    def archive(store: Path) -> None:
        for report in ours.store.glob("*.json"):
            shutil.copy(report, store)
        repack(ours.mar, store / ours.mar.name, handler, config)

    side = Ours(ours.model, folder=folder, archive=archive, batch_size=batch_size)
    side.prepare()
    return side


def repack(source: Path, target: Path, handler: str, config: str) -> None:
    """Copy an archive of `ts-handlers build` with another class in its handler, whose base is the one it had.

    Args:
        source: The archive.
        target: The copy.
        handler: Source of the class; its base is called Base.
        config: Lines added to model-config.yaml.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        name = json.loads(old.read("MAR-INF/MANIFEST.json"))["model"]["handler"]
        for item in old.infolist():
            content = old.read(item)
            if item.filename == name:
                content = _handler(content.decode("utf-8"), handler).encode()
            elif item.filename == "model-config.yaml":
                content += config.encode()
            new.writestr(item, content)
        new.write(_EXTRA, _EXTRA.name)


def _handler(archived: str, handler: str) -> str:
    """Replace the class of an archive's handler.py, which `build` writes with one import and one class."""
    (imported,) = [line for line in archived.splitlines() if line.startswith("from ts_handlers import ")]
    return f"{imported} as Base\n\n{handler}"


def overlap_table(blocks: Sequence[OverlapBlock]) -> str:
    """Return a row for each model and way: the rate in each round, their median and its ratio to the first way's."""
    lines = [["model", "way", "requests/s in each round", "median", "of batch by batch", "p99 ms", "errors"]]
    for model in dict.fromkeys(block.model for block in blocks):
        base = 0.0
        for way in WAYS:
            mine = [block for block in blocks if (block.model, block.way) == (model, way)]
            if not mine:
                continue
            rate = statistics.median(block.requests_per_second for block in mine)
            base = base or rate
            latencies = [block.p99_ms for block in mine if block.p99_ms is not None]
            lines.append(
                [
                    model,
                    way,
                    ", ".join(f"{block.requests_per_second:.1f}" for block in mine),
                    f"{rate:.1f}",
                    f"{rate / base:.0%}" if base else "-",
                    f"{statistics.median(latencies):.0f}" if latencies else "-",
                    str(sum(block.num_errors for block in mine)),
                ]
            )
    return table(lines)


if __name__ == "__main__":
    sys.exit(main())
