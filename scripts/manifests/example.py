"""The example that configs/kubernetes is about: a model whose workers take 512 MiB, and what `configure` makes of it."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ts_handlers.cli import main

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "configs" / "kubernetes"
RSS_MB = 512
GPU_OPTIONS = ("--gpus", "1", "--memory-mb", "2048")


def write_model(store: Path, name: str = "model", rss_mb: float = RSS_MB, weight: float = 1.0) -> Path:
    """Write an archive that nobody loads, and the report of its build."""
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"{name}.mar"
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py:handle"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        archive.writestr("handler.py", "def handle(rows, context):\n    return rows\n")
    report = {"name": name, "version": "1.0", "weight": weight, "rss_mb": rss_mb, "latency_ms": {"1x24": 5.0}}
    (store / f"{name}.build.json").write_text(json.dumps(report), encoding="utf-8")
    return path


def configure(*words: object) -> str:
    """Run `ts-handlers configure` in this process; return what it says.

    Raises:
        RuntimeError: It fails.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(["configure", *map(str, words)])
    if code:
        raise RuntimeError(f"configure ends with {code}: {said.getvalue()}")
    return said.getvalue()


def written_files() -> dict[Path, str]:
    """Return the files of configs/kubernetes that `configure` writes for the example, with what they should hold."""
    files: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "store")

        def take(place: Path, options: Sequence[str], names: Sequence[str]) -> None:
            configure(folder / "store", "--kubernetes", folder / place.name, *options)
            files.update({place / file: (folder / place.name / file).read_text(encoding="utf-8") for file in names})

        take(MANIFESTS / "base", (), ("config.properties", "metrics.yaml"))
        for overlay in ("gpu", "mig"):
            take(MANIFESTS / "overlays" / overlay, GPU_OPTIONS, ("config.properties", "autoscaler.yaml"))
    return files


def roots() -> list[Path]:
    """Return every folder of configs/kubernetes that is rendered by itself."""
    return sorted(
        file.parent for part in ("overlays", "cluster") for file in MANIFESTS.glob(f"{part}/*/kustomization.yaml")
    )
