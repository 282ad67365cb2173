"""The experiment of serving centrally: a process for each image, stock TorchServe, and ours, on the same images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from bench.image_plot import draw_images
from bench.image_run import ImageBlock, block_from_json, blocks_json, images_table, rows, verdicts
from bench.image_sides import Setting, Work, make_settings
from bench.pictures import make_large_pictures, make_pictures
from bench.process import BenchError
from bench.report import machine
from bench.resnet import make_resnet, resnet_venv
from bench.resnet_model import BLOCKS_OF
from bench.shared import add_place_options, make_work_dir, run_benchmark
from ts_handlers.cpu import cpu_budget

EXIT_MISSED = 1

_LARGE_SETTINGS = ("stock-w1b8t0", "stock-w2b8t1", "ours-fp32")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if an aim is missed, 2 for what the caller must put right."""
    args = _parser().parse_args(argv)
    return run_benchmark("centralized", lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/centralized",
        description=__doc__,
        epilog="Stock settings are named by workers, batch size and OMP_NUM_THREADS (0: unset). A server is started for "
        "every block and warmed up; the time until it is ready is told apart. With --json FILE, blocks are added to those "
        "of the file, and table and plot are of all of them: long runs can be made in parts.",
    )
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="in every block (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=1, metavar="N", help="blocks of each setting (default: %(default)s)"
    )
    parser.add_argument("--settings", nargs="*", metavar="NAME", help="what to run (default: all; none: only show)")
    parser.add_argument(
        "--clients", type=int, default=16, metavar="N", help="requests in flight (default: %(default)s)"
    )
    parser.add_argument(
        "--layers", type=int, choices=tuple(BLOCKS_OF), default=152, help="of the ResNet (default: %(default)s)"
    )
    parser.add_argument("--large", action="store_true", help="pictures of 12 megapixels, as phones make them")
    parser.add_argument("--prepare-only", action="store_true", help="make what is needed, and measure nothing")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the result")
    add_place_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    work_dir, facts = make_work_dir(args), machine()
    settings = _settings(args, work_dir)
    chosen = _choose(settings, args)
    work = _prepare(chosen, args, work_dir) if chosen else None
    if args.prepare_only:
        return 0
    blocks = _read(args.json)
    if work is not None:
        first = 1 + max((block.round for block in blocks), default=0)
        for number, setting in product(range(first, first + args.rounds), chosen):
            blocks.append(_block(setting, work, number))
            _write(args.json, facts, blocks)
    return _show(args, blocks, list(settings))


def _prepare(chosen: Sequence[Setting], args: argparse.Namespace, work_dir: Path) -> Work:
    for setting in chosen:
        setting.prepare()
    return Work(sorted(_pictures(args, work_dir).iterdir()), args.images, args.clients)


def _settings(args: argparse.Namespace, work_dir: Path) -> dict[str, Setting]:
    venv, pictures = resnet_venv(work_dir), make_pictures(work_dir / "pictures")
    files = make_resnet(venv, work_dir, pictures, args.layers)
    return make_settings(venv, files, pictures, work_dir, max(1, int(cpu_budget().cpus)))


def _choose(settings: Mapping[str, Setting], args: argparse.Namespace) -> list[Setting]:
    names = args.settings
    if names is None:
        names = _LARGE_SETTINGS if args.large else list(settings)
    unknown = [name for name in names if name not in settings]
    if unknown:
        raise BenchError(f"there is no setting {', '.join(unknown)}; choose of {', '.join(settings)}")
    return [settings[name] for name in names]


def _pictures(args: argparse.Namespace, work_dir: Path) -> Path:
    if args.large:
        return make_large_pictures(work_dir)
    return make_pictures(work_dir / "pictures")


def _block(setting: Setting, work: Work, number: int) -> ImageBlock:
    print(f"round {number}, {setting.name}: {work.num_images} images ...", flush=True)
    done = setting.classify(work)
    block = ImageBlock(
        setting=setting.name,
        group=setting.group,
        round=number,
        num_images=work.num_images,
        wall_s=done.sent.wall_s,
        num_errors=done.sent.num_errors,
        cpu_s=done.cpu_s,
        peak_mib=done.peak_mib,
        start_s=done.start_s,
        labels={str(index): label for index, label in sorted(done.sent.labels.items())},
    )
    print(
        f"  {block.images_per_second:.2f} images/s, {block.cpu_s / block.num_images:.3f} CPU s an image, "
        f"{block.peak_mib:.0f} MiB, errors {block.num_errors}",
        flush=True,
    )
    return block


def _show(args: argparse.Namespace, blocks: Sequence[ImageBlock], order: Sequence[str]) -> int:
    found = rows(blocks, order)
    if not found:
        raise BenchError("there is nothing to show: name settings, or a file of --json that has blocks")
    print(f"\n{images_table(found)}")
    if args.plot is not None:
        draw_images(found, args.plot)
        print(f"written: {args.plot}")
    judged = verdicts(found, is_large=args.large)
    for text, _ in judged:
        print(text)
    return 0 if all(is_reached for _, is_reached in judged) else EXIT_MISSED


def _read(file: Path | None) -> list[ImageBlock]:
    if file is None or not file.is_file():
        return []
    try:
        return [block_from_json(value) for value in json.loads(file.read_text(encoding="utf-8"))["blocks"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"--json {file} was not written by this benchmark ({error}); name another file") from error


def _write(file: Path | None, facts: Mapping[str, str], blocks: Sequence[ImageBlock]) -> None:
    if file is not None:
        content = {"machine": dict(facts), "blocks": blocks_json(blocks)}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
