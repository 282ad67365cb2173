"""The files of an overlay: templates, filled with the numbers of a workload and the reasons for them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from ts_handlers.operate.configure.kubernetes.workload import NAME, Workload, values_of
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME

HEADER = "Written by `ts-handlers configure --kubernetes`, with the config.properties of the same run."
_KUSTOMIZATION = "kustomization.yaml"
_TEMPLATES = Path(__file__).with_name("templates")
_WIDTH = 118
_AUTOSCALE = "autoscale"
"""Folder of the worker autoscaler's settings: what a component generates, only another component can merge."""

_KSERVE_COMPONENTS = {"kpa": "kserve-knative", "hpa": "kserve-standard-hpa", "keda": "kserve-standard-keda"}
_TARGETS = {
    "hpa": ("HorizontalPodAutoscaler", NAME),
    "vpa": ("VerticalPodAutoscaler", NAME),
    "keda": ("ScaledObject", NAME),
    "servingruntime": ("ServingRuntime", "ts-handlers"),
}
"""What the patches change that are operations on paths, for the lists of these kinds have no names."""


def overlay_files(workload: Workload, refer: Callable[[str], str]) -> dict[str, str]:
    """Return the overlay's files by path, but for config.properties and metrics.yaml.

    Args:
        workload: What they say.
        refer: Returns how the kustomization names a part of the manifests.
    """
    options, patches = workload.options, _patches(workload)
    generated = {"name": "torchserve-config", "behavior": "merge", "files": [CONFIG_NAME, METRICS_NAME]}
    images = {"ts-handlers-server": options.image, "ts-handlers-models": options.models_image}
    values = values_of(workload) | {
        "bases": [refer("kserve" if options.kserve else "base")],
        "components": [
            *(refer(f"components/{name}") for name in _components(workload)),
            *([_AUTOSCALE] if workload.most_workers else []),
        ],
        "generators": [] if options.kserve else [generated],
        "images": [{"name": name, **image} for name, image in images.items() if image is not None],
        "patches": [{"path": file, **_target(template)} for file, template in patches.items()],
    }
    files = {_KUSTOMIZATION: "kustomization", **patches}
    if workload.most_workers:
        files |= {f"{_AUTOSCALE}/{_KUSTOMIZATION}": "autoscale-component", f"{_AUTOSCALE}/autoscale.yaml": "autoscale"}
    return {file: _fill_file(template, values) for file, template in files.items()}


def _components(workload: Workload) -> list[str]:
    """Return the components of the manifests that the overlay takes."""
    options = workload.options
    if options.kserve:
        return [_KSERVE_COMPONENTS[workload.autoscaler]]
    taken = {
        "gpu-node": workload.plan.gpus,  # the other components for devices ask for one; here the patch says how many
        workload.autoscaler: workload.autoscaler != "none",
        "worker-autoscaler": workload.most_workers,
        "headroom": options.headroom,
    }
    return [name for name, is_taken in taken.items() if is_taken]


def _patches(workload: Workload) -> dict[str, str]:
    """Return the templates of the patches by the names of their files."""
    is_kserve, autoscaler = workload.options.kserve, workload.autoscaler
    objects = ("inferenceservice", "servingruntime") if is_kserve else ("deployment",)
    found = {f"{name}.yaml": name for name in objects}
    if autoscaler in ({"keda"} if is_kserve else {"hpa", "vpa", "keda"}):
        found["autoscaler.yaml"] = autoscaler
    return found | ({"headroom.yaml": "headroom"} if workload.options.headroom else {})


def _target(template: str) -> dict[str, Any]:
    kind, name = _TARGETS.get(template, (None, None))
    return {"target": {"kind": kind, "name": name}} if kind else {}


def _fill_file(template: str, values: Mapping[str, Any]) -> str:
    """Return a file: each reason above it in lines of its own, and what has a value."""
    text = (_TEMPLATES / f"{template}.yaml").read_text(encoding="utf-8")
    comments = [line.removeprefix("# ") for line in text.replace("\n#   ", " ").splitlines() if line.startswith("#")]
    reasons = Template("\n".join([HEADER, *comments])).substitute(values).splitlines()
    head = "".join(f"# {line}\n" for reason in reasons for line in textwrap.wrap(reason, _WIDTH))
    return head + yaml.safe_dump(_fill(yaml.safe_load(text), values), sort_keys=False, width=120)


def _fill(part: Any, values: Mapping[str, Any]) -> Any:
    """Put values in the place of their names; what then is None or empty is left out of its mapping."""
    if isinstance(part, dict):
        filled = {key: _fill(value, values) for key, value in part.items()}
        return {key: value for key, value in filled.items() if value not in (None, {}, [])}
    if isinstance(part, list):
        return [_fill(item, values) for item in part]
    if not isinstance(part, str):
        return part
    whole = re.fullmatch(r"\$(\w+)", part)
    return values[whole[1]] if whole else Template(part).substitute(values)
