"""Every architecture that transformers registers for our tasks: built small, compared with transformers, and listed.

    scripts/sweep [--task TASK] [--only PART] [--backend NAME] [--again VERDICT] [--write-docs]

Results are kept in .sweep/results.jsonl; what is there is not built again. Exit code 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweeping.architectures import IMAGES, TASKS, Architecture, architectures
from sweeping.page import write_page

RESULTS = Path(".sweep/results.jsonl")
TIMEOUT_S = 300
BACKENDS = ("onnx", "torch", "openvino")

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and say what was found."""
    args = _parse(arguments)
    RESULTS.parent.mkdir(exist_ok=True)
    found = {_key(item): item for item in read_results() if item["verdict"] not in args.again}
    wanted = [item for item in architectures(tuple(args.task or TASKS)) if args.only in item.name]
    for number, architecture in enumerate(wanted, 1):
        backends = [name for name in _backends(architecture) if not args.backend or name in args.backend]
        missing = [name for name in backends if (architecture.task, architecture.name, name) not in found]
        for result in _run(architecture, missing) if missing else ():
            found[_key(result)] = result
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")
            print(f"{number}/{len(wanted)}", _in_words(result), flush=True)
    if args.write_docs:
        write_page(found.values(), Path("docs/architectures.md"))
    wrong = [item for item in found.values() if item["verdict"] == "WRONG"]
    for item in wrong:
        print(_in_words(item))
    return 1 if wrong else 0


def read_results() -> Iterable[Result]:
    """Return the results of earlier runs, the newest last."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/sweep", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", action="append", choices=TASKS, help="repeatable (default: all)")
    parser.add_argument("--only", default="", metavar="PART", help="architectures with this in their name")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="repeatable (default: all)")
    parser.add_argument(
        "--again", action="append", default=[], metavar="VERDICT", help="build those of this verdict again"
    )
    parser.add_argument("--write-docs", action="store_true", help="write docs/architectures.md")
    return parser.parse_args(arguments)


def _backends(architecture: Architecture) -> Sequence[str]:
    return BACKENDS[:2] if architecture.task in IMAGES else BACKENDS


def _key(result: Result) -> tuple[str, str, str]:
    return result["task"], result["name"], result["backend"]


def _run(architecture: Architecture, backends: Sequence[str]) -> list[Result]:
    """Build in a process of its own: one that dies, or takes too long, is a row of the table."""
    command = [sys.executable, "-W", "ignore", "-m", "sweeping.one", architecture.task, architecture.name, *backends]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
        reason = f"the process ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        reason = f"took longer than {TIMEOUT_S} s"
    said = [json.loads(line) for line in output.splitlines() if line.startswith('{"backend"')]
    done = {item["backend"] for item in said}
    said += [{"backend": name, "verdict": "refused", "reason": reason} for name in backends if name not in done]
    return [{"task": architecture.task, "name": architecture.name, **item} for item in said]


def _in_words(result: Result) -> str:
    difference = result.get("difference")
    shown = "" if difference is None else f" {difference:.2g}"
    what = f"{result['task']} {result['name']} {result['backend']}: {result['verdict']}{shown}"
    return f"{what} {result.get('reason') or ''}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
