"""Render all overlays, and those that `configure --kubernetes` writes, into a folder, one file each; check built-in kinds.

With --write, bring the files of configs/kubernetes that `configure` writes up to date instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from manifests.example import MANIFESTS, configure, roots, write_model, written_files
from manifests.kubectl import RenderError, render
from manifests.schemas import VERSIONS, built_in, schema_errors

CONFIGURED: dict[str, tuple[str, ...]] = {
    "hpa": ("--headroom", "2"),
    "keda": ("--autoscaler", "keda"),
    "vpa": ("--autoscaler", "vpa"),
    "grows": ("--autoscaler", "keda", "--max-cpus", "8"),
    "none": ("--autoscaler", "none", "--image", "example.org/server:1.0", "--models-image", "example.org/models:1.0"),
    "gpu": ("--gpus", "1"),
    "kserve-kpa": ("--kserve", "--storage-uri", "s3://models/two"),
    "kserve-hpa": ("--kserve", "--autoscaler", "hpa"),
    "kserve-keda": ("--kserve", "--autoscaler", "keda"),
}
"""Options of `configure --kubernetes` -> what they are rendered as; two models of different size and weight."""

DISTINCT_NAME = "distinct.yaml"
"""Every object that differs from the others, once: what a slow checker is to read."""


def run() -> int:
    """Render, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", help="folder for what is rendered")
    parser.add_argument("--write", action="store_true", help="write base/config.properties and the like")
    args = parser.parse_args()
    if args.write:
        for file, text in written_files().items():
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file}")
        return 0
    if args.output is None:
        parser.error("give the folder for what is rendered, or --write")
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        rendered = {"-".join(root.relative_to(MANIFESTS).parts): render(root) for root in roots()} | _configured()
    except RenderError as reason:
        print(reason, file=sys.stderr)
        return 1
    for name, text in rendered.items():
        (args.output / f"{name}.yaml").write_text(text, encoding="utf-8")
    print(f"rendered {len(rendered)}: {', '.join(rendered)}")
    documents = dict.fromkeys(document for text in rendered.values() for document in text.split("\n---\n"))
    (args.output / DISTINCT_NAME).write_text("\n---\n".join(documents), encoding="utf-8")
    found = built_in(yaml.safe_load(document) for document in documents)
    errors = list(schema_errors(found))
    for error in errors:
        print(error, file=sys.stderr)
    print(f"{len(found)} objects of Kubernetes' own kinds, {VERSIONS[0]} to {VERSIONS[-1]}: {len(errors)} errors")
    return 1 if errors else 0


def _configured() -> dict[str, str]:
    rendered = {}
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "model-store"
        write_model(store, "small", 300)
        write_model(store, "large", 900, weight=3)
        for form, options in CONFIGURED.items():
            if form == "grows" and not (MANIFESTS / "components" / "worker-autoscaler").is_dir():
                continue
            configure(store, "--kubernetes", Path(name) / form, "--cpus", "4", *options)
            rendered[f"configure-{form}"] = render(Path(name) / form)
    return rendered


if __name__ == "__main__":
    sys.exit(run())
