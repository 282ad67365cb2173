"""Load a finished .mar in a fresh process, as a TorchServe worker does, and send it requests.

    python -m ts_handlers.build.verify.smoke MAR < BATCHES.json

prints {"answers", "rss_mb", "load_seconds"}, or {"failure"}. Only the server is faked.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.errors import ConfigError, OperatorError, all_lines

Answer = tuple[int, Any]
"""Status and body of one answer; the body parsed, where it is JSON."""


@dataclass(frozen=True, slots=True)
class Trip:
    """What an archive did in a fresh process.

    Attributes:
        answers: Of each request of each batch.
        rss_mb: Memory of the process after its first batch, in MiB.
        load_seconds: What it took to load.
        log: What it logged of errors: what a worker's log would have.
    """

    answers: list[list[Answer]]
    rss_mb: int
    load_seconds: float
    log: str = ""


def send(mar: Path, batches: Sequence[Sequence[Any]], timeout_s: float = 120) -> Trip:
    """Load the archive in a fresh process and send it batches of requests.

    Args:
        mar: The archive.
        batches: Requests that TorchServe would send together: a str, sent as text/plain, or anything JSON.
        timeout_s: Seconds it may take.

    Raises:
        OperatorError: It did not load, or did not answer each request.
    """
    command = [sys.executable, "-m", "ts_handlers.build.verify.smoke", str(mar.resolve())]
    try:
        result = subprocess.run(
            command,
            cwd=mar.parent,  # -m puts the working folder on the import path
            input=json.dumps([list(batch) for batch in batches]),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise OperatorError(
            f"the archive did not load and answer within {timeout_s:g} s; allow more with --startup-timeout-s"
        ) from error
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        said = " ".join(result.stderr.strip().splitlines()[-3:]) or "it said nothing"
        raise OperatorError(f"the archive ends a fresh process with exit code {result.returncode}: {said}")
    outcome = json.loads(lines[-1])
    if "failure" in outcome:
        raise OperatorError(f"the archive does not load in a fresh process: {outcome['failure']}")
    return Trip(
        [[(status, body) for status, body in batch] for batch in outcome["answers"]],
        outcome["rss_mb"],
        outcome["load_seconds"],
        result.stderr,
    )


def main(arguments: list[str]) -> int:
    """Send the batches in this process; they come on standard input."""
    try:
        outcome = _run(Path(arguments[0]), json.loads(sys.stdin.read()))
    except Exception as error:  # noqa: BLE001  # a team's handler may fail in any way
        name = "" if isinstance(error, OperatorError) else f"{type(error).__name__}: "
        outcome = {"failure": f"{name}{all_lines(error)}"}
    sys.stdout.write(f"\n{json.dumps(outcome)}\n")
    return 0


def _run(mar: Path, batches: Sequence[Sequence[Any]]) -> dict[str, Any]:
    import psutil  # not needed by those who only start the test

    from ts_handlers.testing import load_archive, predict

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    started = time.perf_counter()
    handler = load_archive(mar)
    sys.path.insert(0, str(handler.context.model_dir))  # where a worker has it, for what a handler imports later
    loaded = time.perf_counter() - started
    answers: list[list[Answer]] = []
    rss_mb = 0
    for batch in batches:
        responses = predict(handler, *batch)
        if len(responses) != len(batch):
            raise ConfigError(
                f"the handler answers {len(batch)} requests with {len(responses)} bodies; return one each"
            )
        answers.append([(response.status, _parsed(response.body)) for response in responses])
        rss_mb = rss_mb or round(psutil.Process().memory_info().rss / 2**20)
    return {"answers": answers, "rss_mb": rss_mb, "load_seconds": round(loaded, 2)}


def _parsed(body: Any) -> Any:
    if isinstance(body, (bytes, bytearray)):
        body = body.decode("utf-8", "replace")
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        return body


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
