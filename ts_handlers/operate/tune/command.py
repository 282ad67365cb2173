"""`ts-handlers tune`: its options, and what they mean together. Its imports are light."""

from __future__ import annotations

import argparse
from pathlib import Path

from ts_handlers.operate.arguments import whole

HELP = "compare workers, threads, batch size and batch delay of one archive by measuring a real TorchServe"

EPILOG = """\
Measures configure's default and a few other settings in turns, each time on a fresh TorchServe on 127.0.0.1, up to four
times each; after two rounds those that are worse than the default in every block are left out. The default is kept
unless it is beaten beyond noise. Ctrl-C keeps what is known: the same command goes on from there. The load comes from
this machine: run it where nothing else runs.

exit codes: 0 a setting was chosen; 1 one was chosen, but none meets --slo-p99-ms or keeps up with --rate; 2 a mistake;
130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ts-handlers tune`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("archive", metavar="MAR", type=Path, help="the model archive")
    parser.add_argument(
        "--payloads",
        metavar="FILE",
        type=Path,
        required=True,
        help="what to send: a file with one text a line, a .jsonl, or a folder of files; take real requests",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="new folder for the tuned archive and its configuration",
    )
    parser.add_argument(
        "--minutes", metavar="N", type=_positive, default=10.0, help="how long to search (default: %(default)g)"
    )
    parser.add_argument(
        "--slo-p99-ms", metavar="N", type=_positive, help="most requests per second whose p99 is at most so long"
    )
    parser.add_argument(
        "--rate",
        metavar="R",
        type=_positive,
        help="send R requests per second, whatever the server does, and look for the lowest p99",
    )
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=whole(1),
        help="requests in flight (default: 16); with --rate, at most (default: two seconds' worth, 64 to 1024)",
    )
    parser.add_argument(
        "--max-settings", metavar="N", type=whole(1), default=12, help="settings to try, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--trial-s",
        metavar="S",
        type=_positive,
        default=5.0,
        help="seconds a setting is measured in each round (default: %(default)g)",
    )
    parser.add_argument(
        "--warmup-s",
        metavar="S",
        type=_natural,
        default=2.0,
        help="seconds of load before each measurement (default: %(default)g)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="start over where DIR holds results of something else; files that tune did not write are not overwritten",
    )


def run(args: argparse.Namespace) -> int:
    """Search, and write the tuned folder."""
    from ts_handlers.operate.tune.session import tune

    if args.concurrency is None:
        args.concurrency = 16 if args.rate is None else int(min(1024, max(64, 2 * args.rate)))
    return tune(args)


def _positive(text: str) -> float:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _natural(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value
