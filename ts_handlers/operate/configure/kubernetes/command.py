"""`configure --kubernetes OUT`, `configure --kserve`: one plan -> config.properties and the manifests that go with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ts_handlers.build.command import KSERVE_STORE
from ts_handlers.errors import OperatorError
from ts_handlers.operate.arguments import from_arguments
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.configure.config_file import make_entries
from ts_handlers.operate.configure.kubernetes import overlay, source
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.kubernetes.workload import Workload, plan_workload
from ts_handlers.operate.configure.options import Layout, MachineOptions, Options
from ts_handlers.operate.configure.outcome import check_files, config_files, machine_with, print_plan, write_files
from ts_handlers.operate.configure.plan import count_of
from ts_handlers.operate.torchserve.archives import read_archives
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME

_KSERVE_CONFIG = "config"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (of the pod; a network policy decides who comes in)
_MOUNTS = Path("/models/model-store"), Path("/etc/torchserve")
_KSERVE_MOUNTS = Path("/mnt/models") / KSERVE_STORE, Path("/mnt/models") / _KSERVE_CONFIG
"""Where a pod has the archives, and its configuration."""


def run(args: argparse.Namespace) -> int:
    """Decide, check, write and say what was decided."""
    options = from_arguments(PodOptions, args)
    directory: Path = args.directory.resolve()
    output: Path | None = args.kubernetes.resolve() if args.kubernetes is not None else None
    archives = read_archives(directory)
    machine_options, wanted = from_arguments(MachineOptions, args), from_arguments(Options, args)
    workload = plan_workload(archives, read_reports(directory, archives), machine_options, wanted, options)
    folder = _kserve_config(directory) if output is None or options.kserve else output
    config = folder / CONFIG_NAME
    files = dict(config_files(config, make_entries(workload.plan, _layout(options))))
    if output is not None:
        manifests = overlay.overlay_files(workload, lambda part: source.refer(output, options.kubernetes_base, part))
        files |= {output / name: (text, overlay.HEADER) for name, text in manifests.items()}
    machine = machine_with(workload.plan.cpus, workload.plan.memory.limit_mb)
    warnings = check_files(files, config, machine, directory, force=args.force)
    copied = output if options.kubernetes_base is None else None
    if copied is not None:
        source.check_copy(copied, force=args.force)
    try:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot make {error.filename}: {error.strerror}; choose another place") from error
    if copied is not None:
        source.copy_manifests(copied)
    write_files(files)
    pod, gpus = workload.pod, workload.plan.gpus
    devices = f", {count_of(gpus, 'GPU')}" if gpus else ""
    print(f"a pod: {pod['cpu']} CPUs, {pod['memory_mb']} MiB, {pod['storage_mb']} MiB of disk{devices}")
    print_plan(workload.plan)
    for warning in warnings:
        if warning.key != "disable_token_authorization":  # the manifests answer it
            print(warning.describe())
    if output is None:
        print(f"wrote {config} and {folder / METRICS_NAME}")
        print(f"next: copy {folder.parent} to where storageUri points")
        return 0
    _print_pods(workload)
    print(f"wrote {output}" + ("" if folder == output else f" and {folder}"))
    print(f"next: kubectl apply -k {output}")
    return 0


def _layout(options: PodOptions) -> Layout:
    """Return addresses and paths as they are in the pod."""
    store, config = _KSERVE_MOUNTS if options.kserve else _MOUNTS
    return Layout(
        store,
        config / METRICS_NAME,
        inference_host=_EVERYWHERE,
        metrics_host=_EVERYWHERE,
        disable_token_authorization=True,
    )


def _kserve_config(directory: Path) -> Path:
    if directory.name != KSERVE_STORE:
        raise OperatorError(
            f"--kserve: {directory} is not called {KSERVE_STORE}; KServe finds the archives in a folder of that name, "
            f"beside one called {_KSERVE_CONFIG}: `ts-handlers build --kserve` makes both"
        )
    return directory.parent / _KSERVE_CONFIG


def _print_pods(workload: Workload) -> None:
    options, thresholds = workload.options, workload.thresholds
    waiting = ", ".join(
        f"{name} {depth} or {thresholds.in_flight[name]:g}" for name, depth in thresholds.queue_depth.items()
    )
    said = {
        "hpa": f"at {thresholds.utilization_percent} % CPU",
        "keda": f"at requests waiting, or in a pod: {waiting}",
        "kpa": f"at {thresholds.concurrency} requests in a pod, {thresholds.concurrency_limit} at most",
        "vpa": "size of the pods instead of their number",
        "none": "nobody changes their number",
    }[workload.autoscaler]
    if workload.most_workers:
        most = ", ".join(f"{name} {count}" for name, count in workload.most_workers.items())
        print(f"  a pod may grow to {options.max_cpus:g} CPUs; workers then: {most}")
    print(f"  pods: {workload.min_replicas} to {options.max_replicas}, {workload.autoscaler}: {said}")
