"""The options of `configure` that are about pods."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ts_handlers.operate.arguments import whole

Autoscaler = Literal["hpa", "keda", "vpa", "kpa", "none"]

_MAX_REPLICAS = 5000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"(?P<newName>[a-z0-9][a-z0-9._:/-]*?)(?::(?P<newTag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the operator may ask for.

    Attributes:
        autoscaler: Who decides how many pods there are; None to decide.
        kserve: Whether KServe runs the pods.
        namespace: Their namespace.
        image: The server's image, as a kustomization says it; None for the name in the base.
        models_image: The image with the archives; None for the name in the base.
        storage_uri: Where KServe finds what `--kserve` laid out; None for the place in the base.
        min_replicas: Pods at least; None to decide.
        max_replicas: Pods at most.
        max_cpus: CPUs a pod may grow to, by the worker autoscaler in it; None: it stays as it is.
        headroom: Pods for which room is held.
        gpu_resource: How the node calls what a pod gets --gpus of.
        prometheus_url: Where KEDA asks.
        kubernetes_base: Folder or URL of configs/kubernetes; None for a copy.
    """

    autoscaler: Autoscaler | None = None
    kserve: bool = False
    namespace: str = "ts-handlers"
    image: Mapping[str, str] | None = None
    models_image: Mapping[str, str] | None = None
    storage_uri: str | None = None
    min_replicas: int | None = None
    max_replicas: int = 10
    max_cpus: float | None = None
    headroom: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    kubernetes_base: str | None = None


def _namespace(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no namespace: lower-case letters, digits and dashes, up to 63")
    return text


def _resource(text: str) -> str:
    if not _RESOURCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no extended resource; write DOMAIN/NAME, as nvidia.com/gpu")
    return text


def _image(text: str) -> Mapping[str, str]:
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no image; write NAME, NAME:TAG or NAME@sha256:DIGEST")
    return {key: value for key, value in match.groupdict().items() if value is not None}


POD_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "--kubernetes": {
        "metavar": "OUT",
        "type": Path,
        "help": "write a kustomize overlay into this folder instead: config.properties, and a pod with the CPUs (--cpus, "
        "default 2), memory and thresholds that go with it",
    },
    "--kserve": {
        "action": "store_true",
        "help": "for KServe: DIR is called model-store, and config/ is written beside it, as storageUri wants it; with "
        "--kubernetes the overlay is an InferenceService",
    },
    "--autoscaler": {
        "choices": get_args(Autoscaler),
        "help": "who decides about pods (default: hpa on CPUs, keda on GPUs, kpa for KServe)",
    },
    "--min-replicas": {"metavar": "N", "type": whole(0, _MAX_REPLICAS), "help": "pods at least (default: 2; kpa: 0)"},
    "--max-replicas": {"metavar": "N", "type": whole(1, _MAX_REPLICAS), "help": "pods at most (default: %(default)s)"},
    "--max-cpus": {
        "metavar": "N",
        "type": float,
        "help": "let the worker autoscaler grow a pod to N CPUs, before there are more pods (default: it stays as it is)",
    },
    "--headroom": {
        "metavar": "N",
        "type": whole(0, _MAX_REPLICAS),
        "help": "hold room for N more pods, so that the cluster grows before they are needed (default: %(default)s)",
    },
    "--gpu-resource": {
        "metavar": "NAME",
        "type": _resource,
        "help": "what a pod gets --gpus of: nvidia.com/mig-1g.5gb or nvidia.com/gpu.shared, say (default: %(default)s)",
    },
    "--namespace": {"metavar": "NAME", "type": _namespace, "help": "namespace of all objects (default: %(default)s)"},
    "--image": {"metavar": "REF", "type": _image, "help": "image of the server (default: ts-handlers-server)"},
    "--models-image": {
        "metavar": "REF",
        "type": _image,
        "help": "image with the .mar files in /model-store (default: ts-handlers-models)",
    },
    "--storage-uri": {"metavar": "URI", "help": "KServe: where the folder above DIR was put"},
    "--prometheus-url": {
        "metavar": "URL",
        "help": "keda: the Prometheus with the recording rules (default: %(default)s)",
    },
    "--kubernetes-base": {
        "metavar": "ROOT",
        "help": "folder or URL of configs/kubernetes to refer to (default: copy what is needed into OUT)",
    },
}
"""Each option and what argparse wants to know of it; the defaults are those of PodOptions."""
