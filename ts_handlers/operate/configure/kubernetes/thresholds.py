"""When one more pod is needed, from how many workers a pod has. Pure functions.

A model with c workers is a queue with c servers. The busier they are the longer a request waits before one computes it, and
with few workers it waits long before they are all busy. The target is where a request waits as long as it computes, on
average: below it pods idle, above it waiting grows without bound. Arrivals are taken as random and service times as
exponential (M/M/c), which is careful: real ones vary less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.operate.configure.plan import Plan

MAX_UTILIZATION = 0.8
"""However many workers: the rest is for what comes while another pod loads its models, and for the frontend."""

_STEPS = 60


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an autoscaler compares with.

    Attributes:
        utilization_percent: CPU use of a pod, for an HPA.
        queue_depth: Requests that wait in a pod for each model, on average, for KEDA: as many as its workers.
        in_flight: Requests in a pod for each model, waiting ones among them, for KEDA: as many as workers are wanted busy.
        concurrency: Requests in a pod of all models, for Knative's KPA: as many as workers are wanted busy.
        concurrency_limit: Requests a pod takes at most; no queue of a model overflows below it.
    """

    utilization_percent: int
    queue_depth: Mapping[str, int]
    in_flight: Mapping[str, float]
    concurrency: int
    concurrency_limit: int


def thresholds_of(plan: Plan, most_workers: Mapping[str, int]) -> Thresholds:
    """Return the thresholds for pods with this plan; where a pod grows first, for what it has grown to.

    By Little's law the requests that wait are rate x waiting time; where that time is one service time they are as many as
    the busy workers, c x utilization. A pod that has as many requests as that, waiting ones among them, is on its way there:
    pods take their time to come, and what KEDA reads is a rate over a minute. Twice as many, where the pod is at its
    limit, made KPA add and remove pods in turns (docs/kubernetes.md, Autoscaling compared).
    """
    slots: dict[str, int] = {}
    for model in plan.models:
        at_once = model.batch_size if plan.gpus else 1  # a CPU computes a batch about as fast as its requests in turn
        workers = most_workers.get(model.name, model.min_workers)
        slots[model.name] = slots.get(model.name, 0) + workers * at_once
    utilizations = {name: utilization_of(count) for name, count in slots.items()}
    busy = {name: count * utilizations[name] for name, count in slots.items()}
    batches = sum(2 * model.min_workers * model.batch_size for model in plan.models)
    concurrency = min(max(1, round(sum(busy.values()))), plan.job_queue_size)
    return Thresholds(
        utilization_percent=math.floor(100 * min(utilizations.values())),
        queue_depth=slots,
        in_flight={name: round(value, 1) for name, value in busy.items()},
        concurrency=concurrency,
        concurrency_limit=min(max(concurrency, batches), plan.job_queue_size),
    )


def utilization_of(servers: int) -> float:
    """Return the share of busy servers at which a request waits one service time, MAX_UTILIZATION at most."""
    low, high = 0.0, MAX_UTILIZATION
    if waiting(servers, high) <= 1:
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if waiting(servers, middle) <= 1 else (low, middle)
    return low


def waiting(servers: int, utilization: float) -> float:
    """Return the mean waiting time in service times: Erlang's C formula / (servers x (1 - utilization)).

    Erlang, 1917; computed from his B formula by its recursion, which stays within the range of a float.
    """
    load, blocked = servers * utilization, 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    waits = blocked / (1 - utilization * (1 - blocked))
    return waits / (servers * (1 - utilization))
