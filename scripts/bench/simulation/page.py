"""The section of docs/kubernetes.md: tables, the plot, and what the simulation takes for granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import table
from bench.simulation.outcome import Outcome
from bench.simulation.scenarios import MAX_CPUS, MAX_POD_WORKERS, POD_WORKERS
from bench.simulation.service import Platform, Service
from bench.simulation.traffic import Traffic
from bench.simulation.workers import INTERVAL_SECONDS, WINDOW_SECONDS

BEGIN = "<!-- scripts/bench/autoscaling writes from here -->"
END = "<!-- scripts/bench/autoscaling writes to here -->"

EMPTY_PAGE = f"# Kubernetes\n\n## Autoscaling compared\n\n{BEGIN}\n{END}\n"

HEAD = ("autoscaler", "setting", "SLO missed %", "of it 503 %", "p50 ms", "p99 ms", "CPU-hours", "most CPUs", "replicas changed")


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table, a row each."""
    return table([list(HEAD), *(_row(outcome) for outcome in outcomes)])


def section(
    shipped: Sequence[Outcome],
    others: Sequence[Outcome],
    *,
    slo_seconds: float,
    traffic: Traffic,
    measured: Mapping[str, Any],
    service: Service,
    platform: Platform,
    plot: str,
    command: str,
) -> str:
    """Return the section as Markdown, without its heading."""
    num_requests = shipped[0].num_requests
    parts = [
        f"Made by `{command}`: a discrete-event simulation of one day, {num_requests:,} requests, no cluster. A request misses "
        f"the SLO (p99) of {slo_seconds * 1e3:g} ms when it is answered later than that, or with 503. CPU-hours are what pods "
        "reserve, from the moment a pod is asked for to its end. Every autoscaler has the same requests.",
        "With the settings that `configs/kubernetes` ships:",
        outcome_table(shipped),
    ]
    if others:
        parts += ["With other settings:", outcome_table(others)]
    parts += [
        f"![CPUs over the day of each autoscaler, and misses over CPU-hours of every setting]({plot})",
        "What it takes for granted:",
        "\n".join(f"* {line}" for line in _assumptions(traffic, measured, service, platform)),
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


def _assumptions(
    traffic: Traffic, measured: Mapping[str, Any], service: Service, platform: Platform
) -> Sequence[str]:
    low, high = traffic.burst_factors
    batch = ", ".join(f"{size}: {ms:g}" for size, ms in measured["batch_ms"].items())
    rates = ", ".join(f"{rate:g}" for rate in measured["served_requests_per_second"])
    return [
        f"**Traffic** (seed {traffic.seed}): Poisson arrivals. From {traffic.open_hour:g} to {traffic.close_hour:g} h a curve up "
        f"to {traffic.peak_rate:g} requests/s, and at random moments, every {traffic.calm_seconds / 60:g} minutes on average, a "
        f"burst of {low:g} to {high:g} times that, {traffic.burst_seconds:g} s long on average and there from one second to the "
        f"next. At night nothing, but for a minute of {traffic.night_rate:g} requests/s every "
        f"{traffic.night_gap_seconds / 60:g} minutes or so.",
        f"**Service time, measured** (`--measure`, {measured['machine']['cpu']}, {measured['machine']['cpus_usable']} CPUs): "
        f"{measured['model']}. A batch in process on one thread by its size, ms: {batch}. Through TorchServe, two workers, 16 "
        f"clients: {rates} requests/s in three rounds, {measured['served_share_of_limit']:.0%} of that limit. So a batch of n "
        f"costs {service.call_seconds * 1e3:.1f} + {service.request_seconds * 1e3:.1f} n ms, with a log-normal spread of "
        f"{service.noise:.0%}, in batches of up to {service.batch_size}; {service.job_queue_size} requests may wait in a pod.",
        f"**Loading, measured**: a worker more serves after {service.worker_load_seconds:g} s, a server with two workers "
        f"{service.server_start_seconds:g} s after its process began.",
        f"**The cluster, stated, not measured**: {platform.schedule_seconds:g} s from a larger `replicas` to a container that "
        f"starts (image on the node, room on the node), {platform.readiness_seconds:g} s from a server that serves to traffic; so "
        f"a pod takes {platform.pod_start_seconds(service):.0f} s. An ending pod stays {platform.drain_seconds:g} s and until it "
        f"is empty. An in-place resize takes {platform.resize_seconds:g} s and is granted, unless the row says otherwise.",
        f"**Pods** of {POD_WORKERS} CPUs and as many workers, at most {MAX_CPUS} CPUs in all, at least one pod (KPA: none). With "
        f"the worker autoscaler a pod has 1 to {MAX_POD_WORKERS}; it looks every {INTERVAL_SECONDS} s, at means of "
        f"{WINDOW_SECONDS:g} s. A worker is never slowed by another, nor by the frontend beyond the measured share.",
        "**Routing**: a Service takes a pod by chance for each request. Knative's activator takes pods in turn, passes over those "
        "that have containerConcurrency, and holds what none has room for.",
        "**Metrics**: Prometheus scrapes every 15 s, the rules run every 15 s, `rate` is taken over 1 m and extrapolated as "
        "Prometheus does; TorchServe's counters move when a request is complete. metrics-server samples CPU every 15 s. The HPA "
        "looks every 15 s, 7 s after those. KPA has its pods' concurrency of every second, and decides every 2 s.",
        "**Not in it**: nodes that must be added, pods and workers that fail, clients that try again or give up, memory.",
    ]
