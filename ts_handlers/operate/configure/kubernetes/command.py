"""`configure --kubernetes OUT`, `configure --kserve`: one plan -> config.properties and the manifests that go with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from ts_handlers.cpu import CpuBudget
from ts_handlers.errors import OperatorError
from ts_handlers.operate.arguments import from_arguments
from ts_handlers.operate.build_report import read_reports
from ts_handlers.operate.configure.config_file import HEADER as CONFIG_HEADER
from ts_handlers.operate.configure.config_file import Layout, make_entries
from ts_handlers.operate.configure.kubernetes import overlay, source
from ts_handlers.operate.configure.kubernetes.checks import check_pods
from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.kubernetes.pod import most_workers, plan_pod, pod_of
from ts_handlers.operate.configure.kubernetes.thresholds import thresholds_of
from ts_handlers.operate.configure.kubernetes.workload import Workload
from ts_handlers.operate.configure.outcome import check_ours, own_findings, write_files
from ts_handlers.operate.configure.plan import Options, Plan
from ts_handlers.operate.configure.summary import count_of, print_plan
from ts_handlers.operate.metrics_config import METRICS_HEADER, metrics_yaml
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.archives import Archive, read_archives
from ts_handlers.operate.torchserve.config import CONFIG_NAME, METRICS_NAME
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Machine

KSERVE_STORE = "model-store"
_KSERVE_CONFIG = "config"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (of the pod; a network policy decides who comes in)
_DECIDED = ("disable_token_authorization",)
"""Keys whose warnings are known and answered by the manifests."""


def run(args: argparse.Namespace) -> int:
    """Decide, check, write and say what was decided."""
    check_pods(args)
    options = from_arguments(PodOptions, args)
    directory: Path = args.directory.resolve()
    archives = read_archives(directory)
    reports, wanted = read_reports(directory, archives), from_arguments(Options, args)
    plan = plan_pod(archives, reports, wanted, cpus=args.cpus, max_cpus=options.max_cpus, memory_mb=args.memory_mb)
    most = most_workers(plan, archives, reports, wanted, options.max_cpus) if options.max_cpus else None
    workload = _workload(plan, archives, options, most)
    output: Path | None = args.kubernetes.resolve() if args.kubernetes is not None else None
    folder = _kserve_config(directory) if output is None or options.kserve else output
    files = _server_files(plan, folder, kserve=options.kserve)
    headers = {name: METRICS_HEADER if name.name == METRICS_NAME else CONFIG_HEADER for name in files}
    if output is not None:
        manifests = overlay.overlay_files(workload, lambda part: source.refer(output, options.kubernetes_base, part))
        headers |= {output / name: overlay.HEADER for name in manifests}
        files |= {output / name: text for name, text in manifests.items()}
    for file, header in headers.items():
        check_ours(file, header, force=args.force)
    findings = _findings(plan, directory, folder)
    if output is not None and options.kubernetes_base is None:
        source.check_copy(output, force=args.force)
    for place in {file.parent for file in files}:
        _make_folder(place)
    if output is not None and options.kubernetes_base is None:
        source.copy_manifests(output)
    write_files(files)
    _print(workload, findings, folder, output)
    return 0


def _workload(
    plan: Plan, archives: tuple[Archive, ...], options: PodOptions, most: Mapping[str, int] | None
) -> Workload:
    default = "kpa" if options.kserve else "keda" if plan.gpus or most else "hpa"
    autoscaler = options.autoscaler or default
    least = 0 if autoscaler == "kpa" else min(2, options.max_replicas)
    min_replicas = least if options.min_replicas is None else options.min_replicas
    if min_replicas == 0 and autoscaler != "kpa":
        raise OperatorError(
            f"--min-replicas 0 with --autoscaler {autoscaler}: nothing wakes the first pod; give 1 or more"
        )
    return Workload(plan, pod_of(plan, archives), thresholds_of(plan, most), options, autoscaler, min_replicas, most)


def _kserve_config(directory: Path) -> Path:
    if directory.name != KSERVE_STORE:
        raise OperatorError(
            f"--kserve: {directory} is not called {KSERVE_STORE}; KServe finds the archives in a folder of that name, "
            f"beside one called {_KSERVE_CONFIG}: `ts-handlers build --kserve` makes both"
        )
    return directory.parent / _KSERVE_CONFIG


def _server_files(plan: Plan, folder: Path, *, kserve: bool) -> dict[Path, str]:
    """Return config.properties and metrics.yaml with paths as they are in the pod."""
    if kserve:
        layout = _layout(Path("/mnt/models") / KSERVE_STORE, Path("/mnt/models") / _KSERVE_CONFIG / METRICS_NAME)
    else:
        layout = _layout(Path("/models/model-store"), Path("/etc/torchserve") / METRICS_NAME)
    text = properties.render(make_entries(plan, layout), header=CONFIG_HEADER)
    return {folder / CONFIG_NAME: text, folder / METRICS_NAME: metrics_yaml()}


def _layout(model_store: Path, metrics_config: Path) -> Layout:
    return Layout(
        model_store, metrics_config, inference_host=_EVERYWHERE, metrics_host=_EVERYWHERE, is_token_required=False
    )


def _findings(plan: Plan, directory: Path, folder: Path) -> list[Finding]:
    """Check what the pod will read, with this machine's paths: the pod's are not here."""
    layout = _layout(directory, folder / METRICS_NAME)
    text = properties.render(make_entries(plan, layout), header=CONFIG_HEADER)
    count = math.ceil(plan.cpus)
    budget = CpuBudget(tuple(range(count)), None if count == plan.cpus else plan.cpus)
    machine = Machine(budget, count, plan.memory.limit_mb, python="python")
    found = own_findings(folder / CONFIG_NAME, text, metrics_yaml(), machine)
    return [finding for finding in found if finding.key not in _DECIDED]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot make {folder}: {error.strerror or error}; choose another place") from error


def _print(workload: Workload, findings: list[Finding], folder: Path, output: Path | None) -> None:
    plan, pod, thresholds = workload.plan, workload.pod, workload.thresholds
    gpus = f", {count_of(plan.gpus, 'GPU')}" if plan.gpus else ""
    print(f"a pod: {pod.cpu} CPUs, {pod.memory_mb} MiB, {pod.storage_mb} MiB of disk{gpus}")
    print_plan(plan)
    for finding in findings:
        print(finding.describe())
    if output is None:
        print(f"wrote {folder / CONFIG_NAME} and {folder / METRICS_NAME}")
        print(f"next: copy {folder.parent} to where storageUri points")
        return
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
        print(f"  a pod may grow to {workload.options.max_cpus:g} CPUs; workers then: {most}")
    print(f"  pods: {workload.min_replicas} to {workload.options.max_replicas}, {workload.autoscaler}: {said}")
    print(f"wrote {output}" + ("" if folder == output else f" and {folder}"))
    print(f"next: kubectl apply -k {output}")
