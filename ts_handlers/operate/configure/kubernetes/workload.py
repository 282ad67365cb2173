"""What an overlay is about: the plan of config.properties, a pod for it, and when there are too few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ts_handlers.operate.configure.kubernetes.options import PodOptions
from ts_handlers.operate.configure.kubernetes.pod import Pod
from ts_handlers.operate.configure.kubernetes.thresholds import Thresholds
from ts_handlers.operate.configure.plan import Plan


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything the files say.

    Attributes:
        plan: The plan of config.properties.
        pod: What a pod with it needs.
        thresholds: When there are too few pods.
        options: What the operator asked for.
        autoscaler: Who decides about pods.
        min_replicas: Pods at least.
        most_workers: Workers of each model when a pod has grown to its most CPUs; None where it stays as it is.
    """

    plan: Plan
    pod: Pod
    thresholds: Thresholds
    options: PodOptions
    autoscaler: str
    min_replicas: int
    most_workers: Mapping[str, int] | None = None
