"""Which options of `configure` go together: those of a machine, of a pod, of a pod that KServe runs."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.configure.config_file import Layout
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.plan import MAX_CPUS

_DEFAULTS = PodOptions()
_ADDRESSES = {field.name for field in fields(Layout)} - {"model_store", "metrics_config", "is_token_required"}


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
    _check_devices(args)
    if args.max_cpus is not None:
        _check_growing(args)


def _check_form(args: argparse.Namespace) -> None:
    if args.kubernetes is None:
        for name in (field.name for field in fields(PodOptions) if field.name != "kserve"):
            if getattr(args, name) != getattr(_DEFAULTS, name):
                raise OperatorError(f"{_option(name)} is for the overlay; give --kubernetes OUT, too, or leave it out")
    if args.kserve:
        wrong = {"vpa", "none"}
        only = {"models_image": args.models_image, "headroom": args.headroom, "max_cpus": args.max_cpus}
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


def _check_devices(args: argparse.Namespace) -> None:
    if args.gpu_resource != _DEFAULTS.gpu_resource and not args.gpus:
        raise OperatorError(f"--gpu-resource {args.gpu_resource} without --gpus; say how many of it a pod gets")
    if args.gpus and args.autoscaler in {"hpa", "vpa"}:
        raise OperatorError(
            f"--autoscaler {args.autoscaler} looks at CPUs, and --gpus {args.gpus} lets GPUs compute; choose keda"
            f"{', kpa' if args.kserve else ''} or none"
        )


def _check_growing(args: argparse.Namespace) -> None:
    if not 0 < args.max_cpus <= MAX_CPUS:
        raise OperatorError(f"--max-cpus {args.max_cpus:g}: give a number above 0 and up to {MAX_CPUS:g}")
    if args.autoscaler in {"hpa", "vpa"}:
        raise OperatorError(
            f"--autoscaler {args.autoscaler} with --max-cpus: it goes by the CPUs that the pod's own autoscaler changes; "
            "choose keda or none"
        )
    for option, value in (("--workers", args.workers), ("--gpus", args.gpus)):
        if value:
            raise OperatorError(
                f"{option} {value} with --max-cpus: workers would not follow the CPUs; leave one of them out"
            )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
