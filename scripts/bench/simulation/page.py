"""The section of docs/kubernetes.md: tables, the plot, and what the simulation takes for granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import table
from bench.simulation.outcome import Outcome
from bench.simulation.scenarios import MAX_CPUS, MAX_POD_WORKERS, POD_WORKERS, QUEUE_PROXY_CPUS, SIDECAR_CPUS
from bench.simulation.service import Platform, Service
from bench.simulation.traffic import Traffic
from bench.simulation.workers import INTERVAL_SECONDS, WINDOW_SECONDS

BEGIN = "<!-- scripts/bench/autoscaling writes from here -->"
END = "<!-- scripts/bench/autoscaling writes to here -->"

EMPTY_PAGE = f"# Kubernetes\n\n## Autoscaling compared\n\n{BEGIN}\n{END}\n"

HEAD = (
    "autoscaler",
    "setting",
    "SLO missed %",
    "503 %",
    "p50 ms",
    "p99 ms",
    "CPU-hours",
    "most CPUs",
    "replicas changed",
)


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table, a row each."""
    return table([list(HEAD), *(_row(outcome) for outcome in outcomes)])


@dataclass(frozen=True, slots=True)
class Given:
    """What all runs have in common.

    Attributes:
        slo_seconds: Latency above which an answer is late.
        traffic: What arrives.
        measured: What `--measure` wrote.
        service: The server made of that.
        platform: What is stated of the cluster.
    """

    slo_seconds: float
    traffic: Traffic
    measured: Mapping[str, Any]
    service: Service
    platform: Platform


def section(shipped: Sequence[Outcome], others: Sequence[Outcome], given: Given, *, plot: str, command: str) -> str:
    """Return the section as Markdown, without its heading."""
    parts = [
        f"Made by `{command}`: a discrete-event simulation of one day of {shipped[0].num_requests:,} requests; no cluster "
        f"was there. A request misses the SLO when its answer takes more than {given.slo_seconds * 1e3:g} ms, or is a 503. "
        "CPU-hours are what pods reserve, from the moment a pod is asked for until it is gone. All have the same requests.",
        "With the settings that `configs/kubernetes` ships:",
        outcome_table(shipped),
    ]
    if others:
        parts += ["With other settings:", outcome_table(others)]
    parts += [
        f"![CPUs over the day of each autoscaler, and misses over CPU-hours of every setting]({plot})",
        "What is taken for granted:",
        "\n".join(f"* {line}" for line in (*_load_lines(given), *_cluster_lines(given))),
    ]
    return "\n\n".join(parts)


def _row(outcome: Outcome) -> list[str]:
    requests = max(1, outcome.num_requests)
    return [
        outcome.family,
        outcome.setting,
        f"{100 * outcome.miss_share:.2f}",
        f"{100 * outcome.num_rejected / requests:.2f}",
        f"{outcome.p50_ms:.0f}",
        f"{outcome.p99_ms:.0f}",
        f"{outcome.cpu_hours:.0f}",
        f"{outcome.most_cpus:.0f}",
        str(outcome.num_changes),
    ]


def _load_lines(given: Given) -> Sequence[str]:
    traffic, measured, service = given.traffic, given.measured, given.service
    low, high = traffic.burst_factors
    machine = measured["machine"]
    batch = ", ".join(f"{size}: {ms:g}" for size, ms in measured["batch_ms"].items())
    rates = ", ".join(f"{rate:g}" for rate in measured["served_requests_per_second"])
    return [
        f"**Traffic** (seed {traffic.seed}): Poisson arrivals. From {traffic.open_hour:g} to {traffic.close_hour:g} h a "
        f"curve up to {traffic.peak_rate:g} requests/s; at random, every {traffic.calm_seconds / 60:g} minutes on average, "
        f"a burst of {low:g} to {high:g} times that, there from one second to the next and {traffic.burst_seconds:g} s long "
        "on average. "
        f"At night nothing but, every {traffic.night_gap_seconds / 60:g} minutes or so, some "
        f"{traffic.night_batch_seconds:g} s of {traffic.night_rate:g} requests/s.",
        f"**Service time, measured** (`--measure`; {machine['cpus_usable']} CPUs, {machine['cpu']}): {measured['model']}. "
        f"Batches in one process of one thread, by size, ms: {batch}. Through TorchServe with two workers, 16 clients: "
        f"{rates} requests/s in three rounds, {measured['served_share_of_limit']:.0%} of twice that process: what serving "
        "costs, and what two busy CPUs of that machine cost one another. So a batch of n takes "
        f"{service.call_seconds * 1e3:.1f} + {service.request_seconds * 1e3:.1f} n ms, with a log-normal spread of "
        f"{service.noise:.0%}; batches are of up to {service.batch_size}, and {service.job_queue_size} requests may wait in "
        "a pod.",
        f"**Loading, measured**: one worker more serves after {service.worker_load_seconds:g} s; a server with two, "
        f"{service.server_start_seconds:g} s after its process began.",
    ]


def _cluster_lines(given: Given) -> Sequence[str]:
    platform = given.platform
    return [
        f"**The cluster, stated and not measured**: {platform.schedule_seconds:g} s from a larger `replicas` to a container "
        "that starts (the image is on the node, and room), "
        f"{platform.readiness_seconds:g} s from a server that serves to traffic. So a pod takes "
        f"{platform.pod_start_seconds(given.service):.0f} s. An ending pod stays for {platform.drain_seconds:g} s and until "
        f"it is empty. An in-place resize takes {platform.resize_seconds:g} s, granted unless the row says otherwise.",
        f"**Pods** of {POD_WORKERS} CPUs and as many workers, at most {MAX_CPUS} CPUs in all, at least one pod (KPA: none). "
        f"With the worker autoscaler a pod has 1 to {MAX_POD_WORKERS}; it looks every {INTERVAL_SECONDS} s at means of "
        f"{WINDOW_SECONDS:g} s, and its sidecar reserves {SIDECAR_CPUS:g} CPUs a pod; Knative's, {QUEUE_PROXY_CPUS:g}. No "
        "worker slows another.",
        "**Routing**: a Service takes a pod by chance for each request. Knative's activator takes pods in turn, passes over "
        "those that have `containerConcurrency`, and holds what none has room for.",
        "**Metrics**: scrapes and rules every 15 s, `rate` over 1 m, extrapolated as Prometheus does it; TorchServe's "
        "counters move when a request is complete. CPU is sampled every 15 s. The HPA looks every 15 s, 7 s after those. "
        "KPA has the concurrency of every second, and decides every 2 s.",
        "**Not in it**: nodes that have to be added, pods and workers that fail, clients that try again or give up, memory.",
    ]
