"""The files of an overlay: a kustomization and its patches, each with the reasons of its numbers. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ts_handlers.operate.configure.kubernetes import patches, scaling
from ts_handlers.operate.configure.kubernetes.options import Image, PodOptions
from ts_handlers.operate.configure.kubernetes.workload import Workload
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME

KUSTOMIZATION = "kustomization.yaml"
HEADER = "Written by `ts-handlers configure --kubernetes`, with the config.properties of the same run."
_ADVICE = (
    "Run it again after the models or the pod's size change. What is yours goes into an overlay of your own, which names "
    "this folder among its resources.",
)
_WIDTH = 118
AUTOSCALE_FOLDER = "autoscale"
"""The folder of the worker autoscaler's settings, in the overlay."""

_KSERVE_COMPONENTS = {"kpa": "kserve-knative", "hpa": "kserve-standard-hpa", "keda": "kserve-standard-keda"}
_GPU_COMPONENT = "gpu-node"
"""The components for devices ask for one of it; here the patch does, for as many as there are."""


def base_of(options: PodOptions) -> str:
    """Return the part of the manifests that the overlay builds on."""
    return "kserve" if options.kserve else "base"


def components_of(workload: Workload) -> list[str]:
    """Return the components of the manifests that the overlay takes."""
    options = workload.options
    if options.kserve:
        return [f"components/{_KSERVE_COMPONENTS[workload.autoscaler]}"]
    names = [
        *([_GPU_COMPONENT] if workload.plan.gpus else []),
        *([workload.autoscaler] if workload.autoscaler != "none" else []),
        *(["worker-autoscaler"] if workload.most_workers else []),
        *(["headroom"] if options.headroom else []),
    ]
    return [f"components/{name}" for name in names]


def overlay_files(workload: Workload, refer: Callable[[str], str]) -> dict[str, str]:
    """Return the overlay's files by path, but for config.properties and metrics.yaml.

    Args:
        workload: What they say.
        refer: Returns how the kustomization names a part of the manifests.
    """
    options = workload.options
    chosen = patches.of_kserve(workload) if options.kserve else patches.of_deployment(workload)
    kustomization: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": options.namespace,
        "resources": [refer(base_of(options))],
        "components": [
            *(refer(part) for part in components_of(workload)),
            *([AUTOSCALE_FOLDER] if workload.most_workers else []),
        ],
    }
    if not options.kserve:
        generated = {"name": "torchserve-config", "behavior": "merge", "files": [CONFIG_NAME, METRICS_NAME]}
        kustomization["configMapGenerator"] = [generated]
    images = {"ts-handlers-server": options.image, "ts-handlers-models": options.models_image}
    kustomization["images"] = [_image(name, image) for name, image in images.items() if image is not None]
    kustomization["patches"] = [
        {"path": patch.file_name, **({"target": dict(patch.target)} if patch.target else {})} for patch in chosen
    ]
    files = {KUSTOMIZATION: _text(_ADVICE, {key: value for key, value in kustomization.items() if value})}
    files |= {patch.file_name: _text(patch.reasons, patch.content) for patch in chosen}
    return files | (_autoscale_component(workload) if workload.most_workers else {})


def _autoscale_component(workload: Workload) -> dict[str, str]:
    """Return a component with the worker autoscaler's settings: what a component generates, only another one can merge."""
    settings = scaling.autoscale_settings(workload)
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "configMapGenerator": [{"name": "torchserve-autoscale", "behavior": "merge", "files": [settings.file_name]}],
    }
    return {
        f"{AUTOSCALE_FOLDER}/{KUSTOMIZATION}": _text((), component),
        f"{AUTOSCALE_FOLDER}/{settings.file_name}": _text(settings.reasons, settings.content),
    }


def _image(name: str, image: Image) -> Mapping[str, str]:
    found = {"name": name, "newName": image.name, "newTag": image.tag, "digest": image.digest}
    return {key: value for key, value in found.items() if value is not None}


def _text(comments: Sequence[str], content: Any) -> str:
    lines = [HEADER, *(line for comment in comments for line in textwrap.wrap(comment, _WIDTH))]
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.safe_dump(content, sort_keys=False, width=120)
