"""The options of `configure` that are about pods."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from ts_handlers.errors import OperatorError
from ts_handlers.operate.arguments import whole
from ts_handlers.operate.configure.config_file import Layout

Autoscaler = Literal["hpa", "keda", "vpa", "kpa", "none"]

_MAX_REPLICAS = 5000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._:/-]*?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_ADDRESSES = {field.name for field in fields(Layout)} - {"model_store", "metrics_config", "is_token_required"}


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


def check_without_pods(args: argparse.Namespace) -> None:
    """Check that nothing is asked for that only pods have.

    Raises:
        OperatorError: It is.
    """
    for name in (field.name for field in fields(PodOptions)):
        if getattr(args, name) != getattr(_DEFAULTS, name):
            raise OperatorError(f"{_option(name)} is for pods; give --kubernetes OUT, or leave it out")


def check_pods(args: argparse.Namespace) -> None:
    """Check that nothing is asked for that pods decide themselves.

    Raises:
        OperatorError: It is, or options contradict one another.
    """
    if args.launcher:
        raise OperatorError(
            "--launcher binds workers to the CPUs of this machine, which a pod does not know; leave it out"
        )
    if args.output is not None:
        raise OperatorError("--output is for a machine; --kubernetes and --kserve have a place of their own")
    layout = Layout(Path(), Path())
    for name in sorted(_ADDRESSES):
        if getattr(args, name) != getattr(layout, name):
            raise OperatorError(
                f"{_option(name)} {getattr(args, name)}: a pod's addresses are those that the manifests name; leave it out"
            )
    if args.min_replicas is not None and args.min_replicas > args.max_replicas:
        raise OperatorError(
            f"--min-replicas {args.min_replicas} is more than --max-replicas {args.max_replicas}; give a smaller one"
        )
    _check_form(args)


def _check_form(args: argparse.Namespace) -> None:
    if args.kubernetes is None:
        for name in (field.name for field in fields(PodOptions) if field.name != "kserve"):
            if getattr(args, name) != getattr(_DEFAULTS, name):
                raise OperatorError(f"{_option(name)} is for the overlay; give --kubernetes OUT, too, or leave it out")
    if args.kserve:
        wrong = {"vpa", "none"}
        only = {"models_image": args.models_image, "headroom": args.headroom}
    else:
        wrong = {"kpa"}
        only = {"storage_uri": args.storage_uri}
    if args.autoscaler in wrong:
        remedy = "kpa, hpa or keda" if args.kserve else "hpa, keda, vpa or none, or add --kserve"
        raise OperatorError(
            f"--autoscaler {args.autoscaler} {'with' if args.kserve else 'without'} --kserve; choose {remedy}"
        )
    for name, value in only.items():
        if value:
            raise OperatorError(f"{_option(name)} {'is not for' if args.kserve else 'is for'} --kserve; leave it out")
    if args.gpu_resource != _DEFAULTS.gpu_resource and not args.gpus:
        raise OperatorError(f"--gpu-resource {args.gpu_resource} without --gpus; say how many of it a pod gets")
    if args.gpus and args.autoscaler in {"hpa", "vpa"}:
        raise OperatorError(
            f"--autoscaler {args.autoscaler} looks at CPUs, and --gpus {args.gpus} lets GPUs compute; choose keda"
            f"{', kpa' if args.kserve else ''} or none"
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
