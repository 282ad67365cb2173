"""`ts-handlers bench`: load on any HTTP server, and what it answered."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.operate.arguments import whole
from ts_handlers.operate.load.generator import LoadSpec, generate_load, run_loop
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.load.plot import import_plotly, latency_page
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.torchserve.client import read_key
from ts_handlers.optional import import_optional

HELP = "load a server, closed or open loop, and report rate, latencies and errors"

DEFAULT_CONCURRENCY = 16
"""Requests in flight of a closed loop."""

DEFAULT_MAX_IN_FLIGHT = 1000
"""Most requests in flight of an open loop: the default limit of open files, 1024, is near."""

EXIT_NONE_SUCCEEDED = 1
EXIT_INTERRUPTED = 130

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")  # a field line of RFC 9110

EPILOG = """\
payloads: a text file is one UTF-8 text a line, sent as text/plain (of label<TAB>text the text alone); .jsonl is one JSON
body a line, .json and an image are one body; a folder is one body a file, its type guessed by name. They are sent in
turn, over and over, from memory.

closed loop (default): --concurrency clients send a request as soon as the last one is answered. A server that stalls is
asked less, which hides the stall. open loop (--rate): requests are started on schedule whatever the server does, and a
latency counts from when the request was due.

exit code: 0, with errors in the answers too; 1 if no request was answered with 2xx; 2 for a mistake on the command line
or no server; 130 after Ctrl-C, which ends the load and prints what is known.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("url", metavar="URL", help="where to POST: http://127.0.0.1:8080/predictions/NAME")
    parser.add_argument("--payloads", metavar="FILE", type=Path, required=True, help="request bodies; see below")
    parser.add_argument("--limit", metavar="N", type=whole(1), help="read the first N payloads only")
    parser.add_argument(
        *("--concurrency",),
        metavar="N",
        type=whole(1),
        help=f"requests in flight (default: {DEFAULT_CONCURRENCY}); with --rate, the most (default: "
        f"{DEFAULT_MAX_IN_FLIGHT}; what is due and finds no room is sent late, and counted)",
    )
    parser.add_argument("--rate", metavar="R", type=float, help="open loop: start R requests a second on schedule")
    parser.add_argument("--duration", metavar="S", type=float, default=20.0, help="measure for S seconds (%(default)g)")
    parser.add_argument(
        "--warmup", metavar="S", type=float, default=5.0, help="load before that, not measured (%(default)g)"
    )
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=30.0, help="give a request up after S (%(default)g)"
    )
    parser.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], type=_header, help="may be repeated"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="TorchServe's key_file.json: its inference key is sent as Bearer",
    )
    parser.add_argument("--content-type", metavar="TYPE", type=_header_value, help="of every payload")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate of an https server")
    parser.add_argument("--plot", metavar="FILE.html", type=Path, help="write a page with latency over time")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Load the server and print what it did."""
    if args.plot:
        import_plotly()  # before the load, not after it
        if not args.plot.absolute().parent.is_dir():
            raise OperatorError(f"--plot {args.plot}: there is no folder {args.plot.absolute().parent}; make it first")
    spec = _spec(args)
    result, is_interrupted = run_loop(lambda: _load_until_interrupted(spec))
    # the figures first: a page that cannot be written must not lose them
    print(json.dumps(_to_json(spec, args.payloads, result)) if args.json else _to_text(spec, args.payloads, result))
    sys.stdout.flush()
    if args.plot:
        page = latency_page(result, f"{spec.url}, {args.payloads.name}")
        try:
            args.plot.write_text(page, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise OperatorError(f"--plot {args.plot} cannot be written: {reason}; give another file") from error
        if not args.json:
            print(f"written: {args.plot}")
    if is_interrupted:
        return EXIT_INTERRUPTED
    return 0 if result.num_ok else EXIT_NONE_SUCCEEDED


def _spec(args: argparse.Namespace) -> LoadSpec:
    headers = dict(args.header)
    names = {name.lower() for name in headers}
    if "content-type" in names:
        raise OperatorError("--header Content-Type: each payload has a type of its own; use --content-type TYPE")
    if args.token_file is not None:
        if "authorization" in names:
            raise OperatorError("--header Authorization and --token-file both say who is asking; give one of them")
        headers["Authorization"] = f"Bearer {read_key(args.token_file, 'inference')}"
    default_concurrency = DEFAULT_CONCURRENCY if args.rate is None else DEFAULT_MAX_IN_FLIGHT
    return LoadSpec(
        url=args.url,
        payloads=read_payloads(args.payloads, content_type=args.content_type, limit=args.limit),
        concurrency=args.concurrency or default_concurrency,
        rate=args.rate,
        duration_s=args.duration,
        warmup_s=args.warmup,
        timeout_s=args.timeout,
        headers=headers,
        verify_tls=not args.insecure,
    )


async def _load_until_interrupted(spec: LoadSpec) -> tuple[LoadResult, bool]:
    """Let Ctrl-C end the load in order, and keep what is known by then; a bar on stderr if somebody watches."""
    tqdm = import_optional("tqdm", "progress is shown with tqdm", extra="operate").tqdm
    total_s, shown = spec.warmup_s + spec.duration_s, "{l_bar}{bar}| {n:.0f}/{total:.0f} s"
    with tqdm(total=round(total_s, 1), leave=False, bar_format=shown, disable=not sys.stderr.isatty()) as bar:
        load = generate_load(spec, on_progress=lambda seconds: bar.update(min(seconds, bar.total) - bar.n))
        task, interrupts = asyncio.ensure_future(load), list[bool]()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: interrupts.append(task.cancel()))
        return await task, bool(interrupts)


def _to_json(spec: LoadSpec, payloads: Path, result: LoadResult) -> dict[str, Any]:
    return {
        "url": spec.url,
        "payloads": str(payloads),
        "num_payloads": len(spec.payloads),
        "warmup_s": spec.warmup_s,
        "timeout_s": spec.timeout_s,
        "result": asdict(result),
    }


def _to_text(spec: LoadSpec, payloads: Path, result: LoadResult) -> str:
    head = (
        f"{spec.url}: {result.describe_loop()}, {result.duration_s:.1f} s after {spec.warmup_s:g} s of warm-up, "
        f"{len(spec.payloads)} payloads of {payloads.name}"
    )
    return "\n  ".join([head, *result.describe()])


def _header(text: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write 'Name: value'")
    return match.group(1), match.group(2).strip()


def _header_value(text: str) -> str:
    return _header(f"Content-Type: {text}")[1]
