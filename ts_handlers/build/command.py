"""`ts-handlers build`: a checkpoint -> NAME.mar and NAME.build.json. Its imports are light; the work's are not."""

from __future__ import annotations

import argparse
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ts_handlers.build.report import MAX_WEIGHT
from ts_handlers.config.reading import parse_yaml
from ts_handlers.config.tasks import NAME_PATTERN, TASKS
from ts_handlers.errors import OperatorError
from ts_handlers.machine.features import TARGETS

HELP = "package a model into a .mar"

KSERVE_STORE = "model-store"
"""Where KServe's layout has the archives."""

_OWN_OPTIONS = {
    "task": "use --task",
    "runtime.precision": "use --precision",
    "runtime.backend": "use --backend",
    "runtime.target_cpu": "use --target-cpu",
    "runtime.file": "it is the build's",
    "runtime.embedding_file": "it is the build's",
}
"""Settings that decide what is built, or are decided by it -> what to do instead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="Hugging Face folder or hub id; of images also an .onnx, .pt or .pt2 file"
    )
    parser.add_argument("--task", required=True, choices=tuple(TASKS), help="what the model is for")
    parser.add_argument("--name", required=True, help="model name: letters, digits, dots, dashes and underscores")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the .mar, the model store"
    )
    parser.add_argument(
        "--kserve",
        action="store_true",
        help="lay DIR out for KServe's storageUri: the .mar in DIR/model-store, and DIR/config by `configure --kserve`",
    )
    parser.add_argument("--version", default="1.0", help="model version (default: %(default)s)")
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16", "fp16", "int8", "auto"),
        help="auto: the fastest that passes the gate, measured here (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        choices=("onnx", "openvino", "torch", "ipex", "auto"),
        help="engine (default: onnx, or torch for bf16); auto: the fastest of those installed that passes the gate",
    )
    parser.add_argument(
        "--form",
        choices=("eager", "compiled"),
        help="of the torch backend: the module itself (default), or code compiled for --target-cpu, which takes a C++ "
        "compiler here and none where it is served",
    )
    _add_gate_arguments(parser)
    parser.add_argument("--handler", type=Path, metavar="FILE.py", help="your own handler instead of the task's")
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="texts to check the build on, one a line; or a folder of images"
    )
    _add_image_arguments(parser)
    parser.add_argument("--tolerance", type=float, metavar="X", help="largest relative error against the source")
    parser.add_argument(
        "--sample-request", type=Path, metavar="FILE", help="JSON request the finished archive must answer"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="a setting of the handler section, as output.top_k=1 or tokenizer.truncation=true; repeatable",
    )
    for name, what in (("response", "answer a batch"), ("startup", "load the model")):
        parser.add_argument(
            f"--{name}-timeout-s", type=int, default=120, metavar="S", help=f"seconds a worker may take to {what}"
        )
    parser.add_argument(
        "--weight",
        type=_weight,
        default=1.0,
        metavar="W",
        help="its share of the workers against the weights of other models (default: %(default)g)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing archive")


def _add_image_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (
        ("labels", "names of the labels, where the source has none: one a line, or JSON"),
        ("preprocessor", "preprocessor_config.json (default: the one beside the model)"),
        ("model-file", "Python file with the class of a state dict"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"images: {what}")


def _add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantizer",
        metavar="METHOD",
        help="how int8 is made: dynamic, smooth, mixed, static-percentile, static-minmax, static-entropy, blocks (onnx); "
        "nncf, nncf-mixed, nncf-accuracy (openvino); torchao, inc (torch); auto: the fastest that passes the gate",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="typical texts, one a line, or a folder of images, to measure activations and agreement on",
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="label<TAB>text (or label<TAB>path of an image) lines the build is judged on, against fp32",
    )
    for name, default, what in (
        ("--max-accuracy-drop", 0.5, "points of accuracy that may be lost"),
        ("--min-mean-cosine", 0.998, "without labels: least mean cosine with fp32's answers"),
        ("--min-cosine", 0.99, "without labels: least cosine of a sample"),
    ):
        parser.add_argument(name, type=float, default=default, metavar="X", help=f"{what} (default: %(default)g)")
    parser.add_argument(
        "--target-cpu",
        default="native",
        metavar="CPU",
        help=f"the serving CPU's instructions: native (default), {', '.join(TARGETS)}",
    )


def run(args: argparse.Namespace) -> int:
    """Build, and say what was made and what comes next."""
    for option, value in (("--name", args.name), ("--version", args.version)):
        if not NAME_PATTERN.fullmatch(value):
            raise OperatorError(f"{option} {value!r}: use letters, digits, single dots, dashes and underscores")
    store: Path = args.output / KSERVE_STORE if args.kserve else args.output
    mar = store / f"{args.name}.mar"
    if mar.exists() and not args.force:
        raise OperatorError(f"{mar} exists; replace it with --force, or choose another --name")
    settings = parse_settings(args.settings)
    try:
        from ts_handlers.build.gate import Limits
        from ts_handlers.build.pipeline import build
        from ts_handlers.build.request import BuildRequest
    except ImportError as error:
        raise OperatorError(f"{error.name} is not installed; install ts_handlers[build]") from error
    names = {field.name for field in fields(BuildRequest)}
    options = {name: value for name, value in vars(args).items() if name in names}
    request = BuildRequest(
        **{
            **options,
            "output": store.resolve(),
            "backend": args.backend or ("torch" if args.precision == "bf16" else "onnx"),
            "limits": Limits(args.max_accuracy_drop, args.min_mean_cosine, args.min_cosine),
            "handler": args.handler and args.handler.resolve(),
            "model_file": args.model_file and args.model_file.resolve(),
            "settings": settings,
        }
    )
    with _stopped_by_sigterm():
        build(request, progress=print)
    if args.kserve:
        args.then = ["configure", str(store), "--kserve"]
    else:
        print(f"next: ts-handlers configure {store}")
    return 0


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a build as Ctrl-C does, so that its folder in the model store is removed."""
    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return

    def stop(number: int, frame: object) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= MAX_WEIGHT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to {MAX_WEIGHT:,.0f}")
    return weight


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs into a nested mapping; values are YAML.

    Raises:
        OperatorError: A pair without "=", a value that is no YAML, or a key under a value.
    """
    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise OperatorError(f"--set {pair}: write KEY=VALUE, as output.top_k=1")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise OperatorError(f"--set {pair}: the value is no YAML") from error
        node = tree
        *parents, leaf = key.split(".")
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise OperatorError(f"--set {pair}: {name} is a value already")
        node[leaf] = value
    _check_own_options(tree)
    return tree


def _check_own_options(tree: dict[str, Any]) -> None:
    for path, instead in _OWN_OPTIONS.items():
        section, _, name = path.rpartition(".")
        node = tree.get(section, {}) if section else tree
        if isinstance(node, dict) and name in node:
            raise OperatorError(f"--set {path}={node[name]}: {path} is no setting of its own here; {instead}")
