"""docs/architectures.md, made of the results."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEAD = """# Architectures

Every architecture that transformers registers for a task of ours was made small, with random weights, built, and asked texts
or pictures of many sizes, alone and in one batch.

* **right**: the archive answers as transformers does. The number is the largest difference of a score.
* **refused**: the build says why, and makes no archive. The reason is below the table.

```sh
scripts/sweep --write-docs
```

"""


def write_page(results: Iterable[dict[str, Any]], file: Path) -> None:
    """Write the page."""
    found = list(results)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch", "onnxruntime", "openvino")
    )
    counts = Counter(item["verdict"] for item in found)
    total = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    parts = [HEAD, f"With {versions}: {len(found)} builds, {total}.\n"]
    parts += [
        _section(task, [item for item in found if item["task"] == task])
        for task in dict.fromkeys(item["task"] for item in found)
    ]
    file.write_text("".join(parts), encoding="utf-8")


def _section(task: str, results: list[dict[str, Any]]) -> str:
    backends = [name for name in ("onnx", "torch", "openvino") if any(item["backend"] == name for item in results)]
    reasons: list[str] = []
    made = sorted({item["name"] for item in results if item["verdict"] != "not made"})
    rows = [
        f"| {name} | " + " | ".join(_cell(_of(results, name, backend), reasons) for backend in backends) + " |"
        for name in made
    ]
    left_out = [item["name"] for item in results if item["verdict"] == "not made" and item["backend"] == backends[0]]
    table = [f"\n## {task}\n", f"\n| architecture | {' | '.join(backends)} |\n", f"| --- |{' --- |' * len(backends)}\n"]
    table += [f"{row}\n" for row in rows]
    table += [f"\n{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    if left_out:
        table.append(f"\n\nNot made small here, so not tried: {', '.join(sorted(left_out))}.")
    return "".join(table) + "\n"


def _of(results: list[dict[str, Any]], name: str, backend: str) -> dict[str, Any] | None:
    return next((item for item in results if (item["name"], item["backend"]) == (name, backend)), None)


def _cell(result: dict[str, Any] | None, reasons: list[str]) -> str:
    if result is None:
        return ""
    if result["verdict"] == "right":
        return f"right, {result['difference']:.0e}"
    reason = str(result.get("reason") or "")
    if reason not in reasons:
        reasons.append(reason)
    return f"{result['verdict']} ({reasons.index(reason) + 1})"
