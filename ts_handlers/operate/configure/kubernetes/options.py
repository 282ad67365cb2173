"""The options of `configure` that are about pods."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ts_handlers.operate.arguments import option, whole

Autoscaler = Literal["hpa", "keda", "vpa", "kpa", "none"]

_MAX_REPLICAS = 5000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"(?P<newName>[a-z0-9][a-z0-9._:/-]*?)(?::(?P<newTag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


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


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the operator may ask for pods; each field is an option, and says what it is."""

    kserve: bool = option(
        False,
        "for KServe: DIR is called model-store, and config/ is written beside it, as storageUri wants it; with --kubernetes "
        "the overlay is an InferenceService",
    )
    autoscaler: Autoscaler | None = option(
        None,
        "who decides about pods (default: hpa on CPUs, keda on GPUs, kpa for KServe)",
        choices=get_args(Autoscaler),
    )
    min_replicas: int | None = option(None, "pods at least (default: 2; kpa: 0)", "N", whole(0, _MAX_REPLICAS))
    max_replicas: int = option(10, "pods at most", "N", whole(1, _MAX_REPLICAS))
    max_cpus: float | None = option(
        None,
        "let the worker autoscaler grow a pod to N CPUs, before there are more pods (default: it stays as it is)",
        "N",
        float,
    )
    headroom: int = option(
        0,
        "hold room for N more pods, so that the cluster grows before they are needed",
        "N",
        whole(0, _MAX_REPLICAS),
    )
    gpu_resource: str = option(
        "nvidia.com/gpu",
        "what a pod gets --gpus of: nvidia.com/mig-1g.5gb or nvidia.com/gpu.shared, say",
        "NAME",
        _resource,
    )
    namespace: str = option("ts-handlers", "namespace of all objects", "NAME", _namespace)
    image: Mapping[str, str] | None = option(None, "image of the server (default: ts-handlers-server)", "REF", _image)
    models_image: Mapping[str, str] | None = option(
        None, "image with the .mar files in /model-store (default: ts-handlers-models)", "REF", _image
    )
    storage_uri: str | None = option(None, "KServe: where the folder above DIR was put", "URI")
    prometheus_url: str = option(
        "http://prometheus-operated.monitoring.svc:9090", "keda: the Prometheus with the recording rules", "URL"
    )
    kubernetes_base: str | None = option(
        None, "folder or URL of configs/kubernetes to refer to (default: copy what is needed into OUT)", "ROOT"
    )
