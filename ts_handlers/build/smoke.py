"""Load a finished .mar in a fresh process, as a TorchServe worker does, and send it one request.

    python -m ts_handlers.build.smoke MAR < REQUEST.json

prints {"status", "response", "rss_mb", "load_seconds"}. Only the server is faked; loading follows TorchServe's rules: the
handler file is imported by its base name from the model folder and must define exactly one class, or a `handle`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError


def smoke_test(mar: Path, request: Any, timeout_s: float = 120) -> dict[str, Any]:
    """Load the archive and answer one request in a fresh process.

    Args:
        mar: The archive.
        request: A str, sent as text/plain, or anything JSON, sent as application/json.
        timeout_s: Seconds it may take.

    Returns:
        status, response, rss_mb and load_seconds.

    Raises:
        OperatorError: It did not load, or did not answer with 200.
    """
    command = [sys.executable, "-m", "ts_handlers.build.smoke", str(mar.resolve())]
    try:
        result = subprocess.run(
            command,
            cwd=mar.parent,  # -m puts the working folder on the import path
            input=json.dumps(request),
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
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise OperatorError(f"the archive does not load in a fresh process: {reason}")
    outcome: dict[str, Any] = json.loads(lines[-1])
    if outcome["status"] != 200:
        raise OperatorError(
            f"the archive answers a sample request with {outcome['status']}: {outcome['response']}; if its handler takes "
            "another form, give one with --sample-request"
        )
    return outcome


def main(arguments: list[str]) -> int:
    """Run the test in this process; the request comes on standard input."""
    import psutil  # not needed by those who only start the test

    started = time.perf_counter()
    request = json.loads(sys.stdin.read())
    with tempfile.TemporaryDirectory() as folder:
        model_dir = Path(folder)
        with zipfile.ZipFile(arguments[0]) as archive:
            archive.extractall(model_dir)
        handle, context = _load(model_dir)
        loaded = time.perf_counter() - started
        content_type = "text/plain" if isinstance(request, str) else "application/json"
        context.start_batch([{"body": {"content-type": content_type}}])
        bodies = handle([{"body": request}], context)
    if not isinstance(bodies, list) or len(bodies) != 1:
        raise OperatorError(f"the handler answers one request with {type(bodies).__name__}; it must be a list of one")
    body = bodies[0]
    outcome = {
        "status": context.statuses.get(0, 200),
        "response": body.decode("utf-8") if isinstance(body, (bytes, bytearray)) else body,
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
        "load_seconds": round(loaded, 2),
    }
    sys.stdout.write(f"\n{json.dumps(outcome)}\n")
    return 0


def _load(model_dir: Path) -> tuple[Any, Any]:
    import yaml

    from ts_handlers.testing import FakeContext

    manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    model = manifest["model"]
    config = yaml.safe_load((model_dir / model["configFile"]).read_text(encoding="utf-8"))
    context = FakeContext(model_dir, config, manifest, model_name=model["modelName"])
    sys.path.insert(0, str(model_dir))
    module = importlib.import_module(Path(model["handler"].split(":")[0]).stem)
    if hasattr(module, "handle"):
        module.handle(None, context)
        return module.handle, context
    classes = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    if len(classes) != 1:
        names = ", ".join(item.__name__ for item in classes) or "none"
        raise OperatorError(
            f"{model['handler']} must define exactly one class, as TorchServe wants; it defines {names}"
        )
    handler: Any = classes[0]()
    handler.initialize(context)
    return handler.handle, context


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
