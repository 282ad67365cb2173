"""The files of an overlay: a kustomization and its patches, each with the reasons of its numbers. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ts_handlers.operate.configure.kubernetes.patches import Patch, Workload, autoscale_settings, patches_of
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME

KUSTOMIZATION = "kustomization.yaml"
HEADER = "Written by `ts-handlers configure --kubernetes`, with the config.properties of the same run."
_ADVICE = (
    "Run it again after the models or the pod's size change. What is yours goes into an overlay of your own, which names "
    "this folder among its resources.",
)
_WIDTH = 118
_AUTOSCALE_FOLDER, _AUTOSCALE_NAME = "autoscale", "autoscale.yaml"
"""Place of the worker autoscaler's settings: what a component generates, only another component can merge."""

_KSERVE_COMPONENTS = {"kpa": "kserve-knative", "hpa": "kserve-standard-hpa", "keda": "kserve-standard-keda"}
_MERGED = {"Deployment": "apps/v1", "InferenceService": "serving.kserve.io/v1beta1"}
"""Kinds whose patches are a part of the object; the others' are operations on paths, for their lists have no names."""


def overlay_files(workload: Workload, refer: Callable[[str], str]) -> dict[str, str]:
    """Return the overlay's files by path, but for config.properties and metrics.yaml.

    Args:
        workload: What they say.
        refer: Returns how the kustomization names a part of the manifests.
    """
    options, patches = workload.options, patches_of(workload)
    generated = {"name": "torchserve-config", "behavior": "merge", "files": [CONFIG_NAME, METRICS_NAME]}
    images = {"ts-handlers-server": options.image, "ts-handlers-models": options.models_image}
    kustomization: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": options.namespace,
        "resources": [refer("kserve" if options.kserve else "base")],
        "components": [
            *(refer(f"components/{name}") for name in _components(workload)),
            *([_AUTOSCALE_FOLDER] if workload.most_workers else []),
        ],
        "configMapGenerator": [] if options.kserve else [generated],
        "images": [{"name": name, **image} for name, image in images.items() if image is not None],
        "patches": [
            {"path": file}
            if patch.kind in _MERGED
            else {"path": file, "target": {"kind": patch.kind, "name": patch.name}}
            for file, patch in patches.items()
        ],
    }
    files = {KUSTOMIZATION: _text(_ADVICE, {key: value for key, value in kustomization.items() if value})}
    files |= {file: _text(patch.reasons, _content(patch)) for file, patch in patches.items()}
    if workload.most_workers:
        settings, reasons = autoscale_settings(workload)
        component = {
            "apiVersion": "kustomize.config.k8s.io/v1alpha1",
            "kind": "Component",
            "configMapGenerator": [{"name": "torchserve-autoscale", "behavior": "merge", "files": [_AUTOSCALE_NAME]}],
        }
        files[f"{_AUTOSCALE_FOLDER}/{KUSTOMIZATION}"] = _text((), component)
        files[f"{_AUTOSCALE_FOLDER}/{_AUTOSCALE_NAME}"] = _text(reasons, settings)
    return files


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


def _content(patch: Patch) -> Any:
    """Return a patch as kustomize reads it: a part of the object, or operations of RFC 6902 on values that are there."""
    values = {path: value for path, value in patch.values.items() if value is not None}
    if patch.kind not in _MERGED:
        return [{"op": "replace", "path": f"/{path}", "value": value} for path, value in values.items()]
    content: dict[str, Any] = {"apiVersion": _MERGED[patch.kind], "kind": patch.kind, "metadata": {"name": patch.name}}
    for path, value in values.items():
        *parents, last = path.split("/")
        part = content
        for parent in parents:
            key, _, name = parent.partition("=")
            if not name:
                part = part.setdefault(key, {})
                continue
            items = part.setdefault(key, [])
            if not any(item["name"] == name for item in items):
                items.append({"name": name})
            part = next(item for item in items if item["name"] == name)
        part[last] = value
    return content


def _text(comments: Sequence[str], content: Mapping[str, Any] | Sequence[Any]) -> str:
    lines = [HEADER, *(line for comment in comments for line in textwrap.wrap(comment, _WIDTH))]
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.safe_dump(content, sort_keys=False, width=120)
