from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kubernetes_api import FakeKubernetes, serve_kubernetes
from ts_handlers.operate.autoscale.pod import Pod
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import KubernetesSettings


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def report(caplog: pytest.LogCaptureFixture) -> Report:
    caplog.set_level(logging.INFO, "ts_handlers.autoscale")
    return Report()


@pytest.fixture
def kubernetes(tmp_path: Path) -> FakeKubernetes:
    """A fake API server whose pod has one CPU."""
    return FakeKubernetes(tmp_path)


@pytest.fixture
def pod(kubernetes: FakeKubernetes) -> Iterator[Pod]:
    """The pod, on a fake API server that runs."""
    with serve_kubernetes(kubernetes) as url:
        settings = KubernetesSettings(
            api_url=url, service_account=str(kubernetes.account), pod="server-0", timeout_s=0.5
        )
        yield Pod(settings)
