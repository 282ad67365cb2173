"""The experiment of serving centrally: a process for each image, stock TorchServe, and ours, on the same images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from bench.models.resnet import LAYERS, ResNet, make_resnet
from bench.models.subjects import PRECISIONS, Subject, make_images
from bench.others import ProcessAnImage, Settings, Stock, stock_python
from bench.ours import Ours
from bench.process import BenchError
from bench.report import Block, Ratio, by_side, rate
from bench.runner import Run, add_options
from bench.side import Side

AIMS = {"process": 12.0, "stock": 3.5}
"""What ours in INT8 should be over the best of each."""

LARGE_AIM = 2.0
"""What ours in fp32 should be over the best stock setting, on pictures of many megapixels."""

_LARGE_SETTINGS = ("stock-w1b8t0", "stock-w2b8t1", "ours-fp32")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "Stock settings are named by workers, batch size and OMP_NUM_THREADS (0: unset)."
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="what to run (default: all)")
    parser.add_argument("--layers", type=int, choices=LAYERS, default=152, help="of the ResNet (default: %(default)s)")
    parser.add_argument("--large", action="store_true", help="pictures of 12 megapixels, as phones make them")
    add_options(parser, rounds=1, seconds=60.0)


def run(run: Run) -> int:
    """Run the experiment."""
    args = run.args
    images = make_images(run.work_dir, args.layers, is_large=args.large)
    files = make_resnet(run.work_dir, run.work_dir / "pictures", args.layers)
    settings = _settings(images, files, int(run.machine["cpus_usable"]))
    names = args.settings or (_LARGE_SETTINGS if args.large else list(settings))
    if unknown := [name for name in names if name not in settings]:
        raise BenchError(f"there is no setting {', '.join(unknown)}; choose of {', '.join(settings)}")
    blocks = run.measure([settings[name] for name in names], run.load(images.payloads, images.probes))
    return run.report(blocks, _ratios(blocks, is_large=args.large))


def _settings(images: Subject, files: ResNet, num_cpus: int) -> Mapping[str, Side]:
    folder, python = images.work_dir, stock_python(images.work_dir, "image")
    sides: list[Side] = [ProcessAnImage(number, python, files, images.probes[0], folder) for number in (1, 2, 4)]
    # first as TorchServe does unless told otherwise: a worker a CPU and no batches
    shapes = ((num_cpus, 1, None), (1, 8, None), (num_cpus, 8, None), (num_cpus, 8, 1), (4, 8, None))
    sides += [
        Stock(f"stock-{chosen}", chosen, python, folder / f"stock-image-{chosen}", files)
        for chosen in (Settings(*shape) for shape in shapes)
    ]
    sides += [Ours(f"ours-{precision}", images.archive(*options)) for precision, options in PRECISIONS.items()]
    return {side.name: side for side in sides}


def _ratios(blocks: list[Block], *, is_large: bool) -> list[Ratio]:
    """Compare ours with the best of each other kind."""
    rates = {name: rate(mine) for name, mine in by_side(blocks).items()}
    ours, aims = ("ours-fp32", {"stock": LARGE_AIM}) if is_large else ("ours-int8", AIMS)
    found = []
    for kind, aim in aims.items():
        others = [name for name in rates if name.startswith(f"{kind}-")]
        if others and ours in rates:
            found.append(Ratio(ours, max(others, key=rates.__getitem__), aim))
    return found
