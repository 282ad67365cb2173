"""Which options of `configure` go together: those of a machine, of a pod, of a pod that KServe runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.config_file import Layout
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.plan import MAX_CPUS

_POD = asdict(PodOptions())
_ANY = ("model_store", "metrics_config", "disable_token_authorization")
_ADDRESSES = {name: value for name, value in asdict(Layout(Path(), Path())).items() if name not in _ANY}


def check_options(args: argparse.Namespace) -> None:
    """Check that nothing is asked for that only pods have, or that pods decide themselves.

    Raises:
        OperatorError: It is, or options contradict one another.
    """
    is_pod = args.kubernetes is not None or args.kserve
    for text in _contradictions(args) if is_pod else _pods_only(args):
        raise OperatorError(text)


def _pods_only(args: argparse.Namespace) -> Iterator[str]:
    for name, default in _POD.items():
        if getattr(args, name) != default:
            yield f"{_option(name)} is for pods; give --kubernetes OUT, or leave it out"


def _contradictions(args: argparse.Namespace) -> Iterator[str]:
    if args.launcher:
        yield "--launcher binds workers to the CPUs of this machine, which a pod does not know; leave it out"
    if args.output is not None:
        yield "--output is for a machine; --kubernetes and --kserve have a place of their own"
    for name, default in sorted(_ADDRESSES.items()):
        if (value := getattr(args, name)) != default:
            yield f"{_option(name)} {value}: a pod's addresses are those that the manifests name; leave it out"
    if args.min_replicas is not None and args.min_replicas > args.max_replicas:
        yield f"--min-replicas {args.min_replicas} is more than --max-replicas {args.max_replicas}; give a smaller one"
    for name, default in _POD.items():
        if args.kubernetes is None and name != "kserve" and getattr(args, name) != default:
            yield f"{_option(name)} is for the overlay; give --kubernetes OUT, too, or leave it out"
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
