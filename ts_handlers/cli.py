"""`ts-handlers VERB`: build a model archive, configure and run the server, and say what the machine gives.

Each verb is a module with HELP, `add_arguments(parser)` and `run(args) -> exit code`. Only the verb that was asked for
is imported. A verb that sets `args.then` to a command line is followed by it: so `build`, which knows nothing of the
server, can end in `configure`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence

import ts_handlers
from ts_handlers.errors import OperatorError, printable
from ts_handlers.telemetry import disable_telemetry

VERBS = {
    "build": "ts_handlers.build.command",
    "configure": "ts_handlers.operate.configure.command",
    "serve": "ts_handlers.operate.serve",
    "ready": "ts_handlers.operate.ready",
    "drain": "ts_handlers.operate.drain",
    "tune": "ts_handlers.operate.tune.command",
    "bench": "ts_handlers.operate.bench",
    "doctor": "ts_handlers.operate.doctor",
    "autoscale": "ts_handlers.operate.autoscale.command",
}

DEBUG_ENV = "TS_HANDLERS_DEBUG"
"""Environment variable that lets errors through with their traceback."""

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 2 for a mistake of the operator, 130 for Ctrl-C."""
    disable_telemetry()
    argv = sys.argv[1:] if argv is None else list(argv)
    while True:
        verbs = argv[:1] if argv and argv[0] in VERBS else list(VERBS)
        args = _parser(verbs).parse_args(argv)
        code = _run(args)
        if code or not args.then:
            return code
        argv = args.then


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except Exception as error:
        if os.environ.get(DEBUG_ENV):
            raise
        text = str(error)
        if not isinstance(error, (OperatorError, OSError)):  # what no check foresaw: a broken file, or a bug of ours
            text = f"{type(error).__name__}: {text} (set {DEBUG_ENV}=1 to see where)"
        print(printable(f"ts-handlers {args.verb}: error: {text}"), file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser(verbs: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ts-handlers", description="TorchServe handlers that use the CPUs they were given."
    )
    parser.add_argument("--version", action="version", version=f"ts-handlers {ts_handlers.__version__}")
    commands = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for verb in verbs:
        module = importlib.import_module(VERBS[verb])
        command = commands.add_parser(verb, help=module.HELP, description=f"{module.HELP[0].upper()}{module.HELP[1:]}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run, then=None)
    return parser


if __name__ == "__main__":
    sys.exit(main())
