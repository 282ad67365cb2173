"""The options of `configure` that are about pods, and which of all options go together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from ts_handlers.errors import OperatorError
from ts_handlers.operate.arguments import matching, option, whole
from ts_handlers.operate.configure.options import MAX_CPUS, Layout

Autoscaler = Literal["hpa", "keda", "vpa", "kpa", "none"]

_MAX_REPLICAS = 5000
_NAMESPACE = matching(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "namespace: lower-case letters, digits and dashes, up to 63"
)
_RESOURCE = matching(
    r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
    "extended resource; write DOMAIN/NAME, as nvidia.com/gpu",
)
_IMAGE = re.compile(
    r"(?P<newName>[a-z0-9][a-z0-9._:/-]*?)(?::(?P<newTag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def _image(text: str) -> Mapping[str, str]:
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no image; write NAME, NAME:TAG or NAME@sha256:DIGEST")
    return {key: value for key, value in match.groupdict().items() if value is not None}


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the operator may ask for pods; each field is an option, and says what it is."""

    kubernetes: Path | None = option(
        None,
        "write a kustomize overlay into this folder instead: config.properties, and a pod with the CPUs (--cpus, default 2)"
        ", memory and thresholds that go with it",
        "OUT",
        Path,
    )
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
        _RESOURCE,
    )
    namespace: str = option("ts-handlers", "namespace of all objects", "NAME", _NAMESPACE)
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


_POD = asdict(PodOptions())
_ANY = ("model_store", "metrics_config", "disable_token_authorization")
_ADDRESSES = {name: value for name, value in asdict(Layout(Path(), Path())).items() if name not in _ANY}


def check_options(args: argparse.Namespace) -> None:
    """Check that nothing is asked for that only pods have, or that pods decide themselves.

    Raises:
        OperatorError: It is, or options contradict one another.
    """
    for text in _contradictions(args):
        raise OperatorError(text)


def _contradictions(args: argparse.Namespace) -> Iterator[str]:
    for name, default in _POD.items():
        if args.kubernetes is None and name != "kserve" and getattr(args, name) != default:
            yield f"{_option(name)} is for the overlay that --kubernetes OUT writes; give both, or leave it out"
    if args.kubernetes is None and not args.kserve:
        return
    if args.launcher:
        yield "--launcher binds workers to the CPUs of this machine, which a pod does not know; leave it out"
    if args.output is not None:
        yield "--output is for a machine; --kubernetes and --kserve have a place of their own"
    for name, default in sorted(_ADDRESSES.items()):
        if (value := getattr(args, name)) != default:
            yield f"{_option(name)} {value}: a pod's addresses are those that the manifests name; leave it out"
    if args.min_replicas is not None and args.min_replicas > args.max_replicas:
        yield f"--min-replicas {args.min_replicas} is more than --max-replicas {args.max_replicas}; give a smaller one"
    yield from _of_kserve(args)
    yield from _of_gpus(args)
    if args.max_cpus is not None:
        yield from _of_growing(args)


def _of_gpus(args: argparse.Namespace) -> Iterator[str]:
    if args.gpu_resource != _POD["gpu_resource"] and not args.gpus:
        yield f"--gpu-resource {args.gpu_resource} without --gpus; say how many of it a pod gets"
    if args.gpus and args.autoscaler in {"hpa", "vpa"}:
        yield (
            f"--autoscaler {args.autoscaler} looks at CPUs, and --gpus {args.gpus} lets GPUs compute; choose keda"
            f"{', kpa' if args.kserve else ''} or none"
        )


def _of_kserve(args: argparse.Namespace) -> Iterator[str]:
    if args.autoscaler in ({"vpa", "none"} if args.kserve else {"kpa"}):
        remedy = "kpa, hpa or keda" if args.kserve else "hpa, keda, vpa or none, or add --kserve"
        yield f"--autoscaler {args.autoscaler} {'with' if args.kserve else 'without'} --kserve; choose {remedy}"
    for name in ("models_image", "headroom", "max_cpus") if args.kserve else ("storage_uri",):
        if getattr(args, name):
            yield f"{_option(name)} {'is not for' if args.kserve else 'is for'} --kserve; leave it out"


def _of_growing(args: argparse.Namespace) -> Iterator[str]:
    if not 0 < args.max_cpus <= MAX_CPUS:
        yield f"--max-cpus {args.max_cpus:g}: give a number above 0 and up to {MAX_CPUS:g}"
    if args.autoscaler in {"hpa", "vpa"}:
        yield (
            f"--autoscaler {args.autoscaler} with --max-cpus: it goes by the CPUs that the pod's own autoscaler changes; "
            "choose keda or none"
        )
    for name in ("workers", "gpus"):
        if value := getattr(args, name):
            yield f"{_option(name)} {value} with --max-cpus: workers would not follow the CPUs; leave one of them out"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
