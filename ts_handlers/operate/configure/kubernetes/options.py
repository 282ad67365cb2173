"""The options of `configure` that are about pods."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ts_handlers.operate.arguments import whole

Autoscaler = Literal["hpa", "keda", "vpa", "kpa", "none"]

_MAX_REPLICAS = 5000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._:/-]*?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image.

    Attributes:
        name: Registry and repository.
        tag: Its tag; None for none.
        digest: Its digest; None for none.
    """

    name: str
    tag: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the operator may ask for.

    Attributes:
        autoscaler: Who decides how many pods there are; None to decide.
        kserve: Whether KServe runs the pods.
        namespace: Their namespace.
        image: The server's image; None for the name in the base.
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
    image: Image | None = None
    models_image: Image | None = None
    storage_uri: str | None = None
    min_replicas: int | None = None
    max_replicas: int = 10
    max_cpus: float | None = None
    headroom: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    kubernetes_base: str | None = None


_DEFAULTS = PodOptions()


def add_pod_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare the options of pods."""
    group.add_argument(
        "--kubernetes",
        metavar="OUT",
        type=Path,
        help="write a kustomize overlay into this folder instead: config.properties, and a pod with the CPUs (--cpus, "
        "default 2), memory and thresholds that go with it",
    )
    group.add_argument(
        "--kserve",
        action="store_true",
        help="for KServe: DIR is called model-store, and config/ is written beside it, as storageUri wants it; with "
        "--kubernetes the overlay is an InferenceService",
    )
    group.add_argument(
        "--autoscaler",
        choices=get_args(Autoscaler),
        help="who decides about pods (default: hpa on CPUs, keda on GPUs, kpa for KServe)",
    )
    group.add_argument(
        "--min-replicas", metavar="N", type=whole(0, _MAX_REPLICAS), help="pods at least (default: 2; kpa: 0)"
    )
    group.add_argument(
        "--max-replicas",
        metavar="N",
        type=whole(1, _MAX_REPLICAS),
        default=_DEFAULTS.max_replicas,
        help="pods at most (default: %(default)s)",
    )
    group.add_argument(
        "--max-cpus",
        metavar="N",
        type=float,
        help="let the worker autoscaler grow a pod to N CPUs, before there are more pods (default: it stays as it is)",
    )
    group.add_argument(
        "--headroom",
        metavar="N",
        type=whole(0, _MAX_REPLICAS),
        default=0,
        help="hold room for N more pods, so that the cluster grows before they are needed (default: 0)",
    )
    group.add_argument(
        "--gpu-resource",
        metavar="NAME",
        type=_resource,
        default=_DEFAULTS.gpu_resource,
        help="what a pod gets --gpus of: nvidia.com/mig-1g.5gb or nvidia.com/gpu.shared, say (default: %(default)s)",
    )
    group.add_argument(
        "--namespace",
        type=_namespace,
        default=_DEFAULTS.namespace,
        metavar="NAME",
        help="namespace of all objects (default: %(default)s)",
    )
    group.add_argument("--image", type=_image, metavar="REF", help="image of the server (default: ts-handlers-server)")
    group.add_argument(
        "--models-image",
        type=_image,
        metavar="REF",
        help="image with the .mar files in /model-store (default: ts-handlers-models)",
    )
    group.add_argument("--storage-uri", metavar="URI", help="KServe: where the folder above DIR was put")
    group.add_argument(
        "--prometheus-url",
        metavar="URL",
        default=_DEFAULTS.prometheus_url,
        help="keda: the Prometheus with the recording rules (default: %(default)s)",
    )
    group.add_argument(
        "--kubernetes-base",
        metavar="ROOT",
        help="folder or URL of configs/kubernetes to refer to (default: copy what is needed into OUT)",
    )


def _namespace(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no namespace: lower-case letters, digits and dashes, up to 63")
    return text


def _resource(text: str) -> str:
    if not _RESOURCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no extended resource; write DOMAIN/NAME, as nvidia.com/gpu")
    return text


def _image(text: str) -> Image:
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no image; write NAME, NAME:TAG or NAME@sha256:DIGEST")
    return Image(match["name"], match["tag"], match["digest"])
