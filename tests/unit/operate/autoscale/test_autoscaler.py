"""The loop in states that a real TorchServe cannot be brought to at will; its answers are made up here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tests.kubernetes_api import FakeKubernetes
from ts_handlers.operate.autoscale import workers
from ts_handlers.operate.autoscale.autoscaler import Autoscaler
from ts_handlers.operate.autoscale.pod import Pod, Resizer
from ts_handlers.operate.autoscale.remove import in_background
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import Settings, parse_settings
from ts_handlers.operate.autoscale.workers import Start, Workers, claimed_cpus, most_workers
from ts_handlers.operate.torchserve.client import ModelStatus, TorchServe, TorchServeError, Worker
from ts_handlers.operate.torchserve.metrics import Counters

if TYPE_CHECKING:
    from tests.unit.operate.autoscale.conftest import Clock

GIB = 2**30
T = TypeVar("T")


@dataclass
class FakeTorchServe(TorchServe):
    """A TorchServe that has the workers it is asked for at once, of models with this many requests waiting.

    Attributes:
        queued: Requests that wait, by model.
        num_workers: Workers, by model.
        num_starting: How many of them, the last ones, are not ready.
        memory_bytes: Resident memory of each worker.
        problem: What it fails with.
        metrics_problem: What its metrics fail with.
        scaled: (model, workers) of every change.
        said: What a worker says of itself.
        is_free: Set while its workers have time to say so.
    """

    queued: dict[str, int]
    num_workers: dict[str, int] = field(default_factory=dict)
    num_starting: int = 0
    memory_bytes: int = 0
    problem: str = ""
    metrics_problem: str = "no metrics"
    scaled: list[tuple[str, int]] = field(default_factory=list)
    said: Mapping[str, Any] = field(default_factory=dict)
    is_free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.is_free.set()

    def status(self, model: str, version: str | None = None) -> ModelStatus:
        if self.problem or model not in self.queued:
            raise TorchServeError(self.problem or f"TorchServe has no model {model}")
        count = self.num_workers.setdefault(model, 1)
        found = tuple(
            Worker(str(9000 + index), index + 1, index < count - self.num_starting, self.memory_bytes)
            for index in range(count)
        )
        return ModelStatus(found, self.queued[model], 100, 120.0)

    def counters(self) -> Counters:
        if self.metrics_problem:
            raise TorchServeError(self.metrics_problem)
        return Counters({}, {}, {}, 0.0, {})

    def scale(self, model: str, num_workers: int) -> None:
        self.scaled.append((model, num_workers))
        self.num_workers[model] = num_workers

    def describe_by_worker(self, model: str, headers: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
        self.is_free.wait()
        if not self.said:
            raise TorchServeError("the queue is full")
        return self.said


def settings(*models: str, cpus: float = 8.0, **others: Any) -> Settings:
    policy = {"max_workers": 4, "target_in_flight": 4, "load_time_s": 1, "up_load_times": 0, "down_load_times": 2}
    content = {"models": dict.fromkeys(models or ("m",), policy), "budget": {"max_cpus": cpus}, **others}
    return parse_settings(content, "a.yaml")


def looks(autoscaler: Autoscaler, clock: Clock, count: int) -> None:
    for _ in range(count):
        autoscaler.look()
        clock.now += 2.0


def at_once(work: Callable[[], T]) -> Future[T]:
    """Do in the foreground what is for the background: it is over at the next look."""
    future: Future[T] = Future()
    future.set_result(work())
    return future


def make(
    server: TorchServe,
    clock: Clock,
    report: Report,
    config: Settings,
    resizer: Resizer | None = None,
    *,
    start: Start = at_once,
    is_dry_run: bool = False,
) -> Autoscaler:
    return Autoscaler(config, server, resizer, report, clock=clock, start=start, is_dry_run=is_dry_run)


def test_workers_are_added_up_to_the_budget_and_that_is_said_once(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 60})
    looks(make(server, clock, report, settings(cpus=3.0)), clock, 12)
    assert server.scaled == [("m", 3)]
    told = [record.getMessage() for record in caplog.records if "stays at 3 workers (budget)" in record.getMessage()]
    assert len(told) == 1
    assert "5 wanted, stays: 3 CPUs for workers, 1 for each" in told[0]
    assert caplog.text.count("the queue alone decides") == 1
    wanted = report.registry.get_sample_value("ts_handlers_autoscale_workers", {"model": "m", "state": "wanted"})
    assert wanted == 3.0


def test_memory_that_is_known_limits_as_cpus_do(clock: Clock, report: Report) -> None:
    server = FakeTorchServe({"m": 60}, memory_bytes=GIB)
    config = settings(budget={"memory_mb": 3000, "frontend_memory_mb": 900, "max_cpus": 8.0})
    looks(make(server, clock, report, config), clock, 12)
    assert server.scaled == [("m", 2)]
    hungry = FakeTorchServe({"m": 60}, memory_bytes=1000 * GIB)
    looks(make(hungry, clock, report, settings()), clock, 12)
    assert hungry.scaled == [], "this machine has less"


def test_models_share_one_budget_and_the_first_is_served_first_at_every_look(clock: Clock, report: Report) -> None:
    server = FakeTorchServe({"a": 60, "b": 60})
    looks(make(server, clock, report, settings("a", "b", cpus=5.0)), clock, 20)
    assert server.num_workers == {"a": 3, "b": 2}


def claiming(report: Report, count: int, cpus: float, memory_mb: int | None = None) -> Workers:
    config = settings(models={"m": {"cpus_per_worker": cpus, "memory_per_worker_mb": memory_mb}})
    workers = Workers("m", config, FakeTorchServe({}), report, clock=float, start=at_once)
    workers.num_claimed = count
    return workers


def test_cpus_are_shared_with_other_models(report: Report) -> None:
    others = [claiming(report, 2, 1.0), claiming(report, 1, 2.0)]
    assert claimed_cpus(others) == 4.0
    limit = most_workers(claiming(report, 1, 1.5), others, 7.5)
    assert (limit.workers, limit.reason) == (2, "7.5 CPUs for workers, 1.5 for each, beside 3 of other models")
    assert most_workers(claiming(report, 0, 0.1), [], 0.3).workers == 3, "not 2 for want of a rounding error"


def test_memory_limits_where_it_is_scarcer_and_known(report: Report) -> None:
    others = [claiming(report, 1, 1.0, 200)]
    limit = most_workers(claiming(report, 1, 1.0, 300), others, 8.0, 1000 * 2**20)
    assert (limit.workers, limit.reason) == (2, "1000 MiB for workers, 300 for each, beside 1 of other models")
    assert most_workers(claiming(report, 1, 1.0), [], 8.0, 1000 * 2**20).workers == 8
    assert most_workers(claiming(report, 1, 1.0, 1), [], 8.0, 1000 * 2**20).workers == 8


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 60})
    looks(make(server, clock, report, settings(), is_dry_run=True), clock, 6)
    assert server.scaled == []
    assert caplog.text.count("m: would go from 1 to 3 workers (load)") == 1


def test_a_dead_torchserve_is_waited_for_and_one_unknown_model_stops_no_other(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"a": 60}, problem="nobody answers")
    autoscaler = make(server, clock, report, settings("a", "z"))
    looks(autoscaler, clock, 5)
    assert caplog.text.count("nobody answers") == 1
    assert report.registry.get_sample_value("ts_handlers_autoscale_up", {"target": "torchserve"}) == 0.0
    server.problem = ""
    looks(autoscaler, clock, 5)
    assert "TorchServe has no model z" in caplog.text
    assert server.num_workers == {"a": 4}
    server.queued["z"] = 0
    looks(autoscaler, clock, 1)
    assert "torchserve answers again" in caplog.text


def test_a_refused_change_is_said_and_tried_again(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeTorchServe({"m": 60})
    autoscaler = make(server, clock, report, settings())
    with monkeypatch.context() as patch:

        def refuse(model: str, num_workers: int) -> None:
            raise TorchServeError(f"TorchServe refuses {num_workers} workers for {model}")

        patch.setattr(server, "scale", refuse)
        looks(autoscaler, clock, 3)
    assert "refuses 3 workers for m" in caplog.text
    looks(autoscaler, clock, 1)
    assert server.scaled == [("m", 3)], "a change that was not made has no cooldown"


def test_a_worker_that_does_not_start_is_given_up(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 60}, num_workers={"m": 2}, num_starting=1)
    autoscaler = make(server, clock, report, settings())
    looks(autoscaler, clock, 92)
    assert server.scaled == [("m", 1)]
    assert "worker 9001 was not ready after 180 s and is removed; none is added for 300 s" in caplog.text
    server.num_starting = 0
    looks(autoscaler, clock, 100)
    assert server.scaled == [("m", 1)]
    assert "a worker could not be started lately" in caplog.text
    looks(autoscaler, clock, 60)
    assert server.scaled[1] == ("m", 3)


def test_the_only_worker_is_not_given_up(clock: Clock, report: Report, caplog: pytest.LogCaptureFixture) -> None:
    server = FakeTorchServe({"m": 0}, num_starting=1)
    looks(make(server, clock, report, settings()), clock, 100)
    assert server.scaled == []
    assert caplog.text.count("m: a worker is not ready after 180 s") == 1


def test_workers_of_a_handler_that_cannot_be_held_stay(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 0}, num_workers={"m": 2}, said={"model": "somebody's"})
    looks(make(server, clock, report, settings()), clock, 8)
    assert server.scaled == []
    assert "its handler cannot hold a worker while it is removed, so workers are only added" in caplog.text


def test_a_worker_that_cannot_be_held_in_time_stays(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 0}, num_workers={"m": 2}, said={"pid": 7, "cpu_quota": None})
    looks(make(server, clock, report, settings(hold_timeout_s=0.3)), clock, 6)
    assert server.scaled == []
    assert "worker 9001 was too busy to be held within 0.3 s; it stays" in caplog.text
    full = FakeTorchServe({"m": 0}, num_workers={"m": 2})
    looks(make(full, clock, report, settings()), clock, 6)
    assert "worker 9001 cannot be held; it stays: the queue is full" in caplog.text


def test_a_worker_that_is_busy_for_long_keeps_no_other_model_waiting(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"a": 0, "b": 0}, num_workers={"a": 2}, said={"model": "somebody's"})
    config = settings("a", "b")
    autoscaler = make(server, clock, report, config, start=in_background)
    server.is_free.clear()
    try:
        looks(autoscaler, clock, 4)
        server.queued["b"] = 60
        looks(autoscaler, clock, 4)
        assert server.num_workers == {"a": 2, "b": 4}
        assert " a: " not in caplog.text, "its removal has not come to an end"
    finally:
        server.is_free.set()


def test_what_could_be_removed_counts_though_the_rest_stays(
    clock: Clock, report: Report, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeTorchServe({"m": 0}, num_workers={"m": 4})

    def remove(_server: TorchServe, model: str, count: int, timeout_s: float) -> tuple[int, str]:
        server.num_workers[model] -= 1
        return 1, f"{model}: {count - 1} stays after {timeout_s:g} s"

    monkeypatch.setattr(workers, "remove_workers", remove)
    content = {"max_step_down": 2, "load_time_s": 1, "down_load_times": 2, "cooldown_load_times": 0}
    looks(make(server, clock, report, settings(models={"m": content})), clock, 3)
    assert "m: 4 -> 3 workers (idle)" in caplog.text
    assert "m: 1 stays after 20 s" in caplog.text
    changes = {"model": "m", "direction": "down"}
    assert report.registry.get_sample_value("ts_handlers_autoscale_changes_total", changes) == 1.0


def test_workers_wait_for_the_cgroup_and_come_one_by_one_with_the_cpus(
    clock: Clock, report: Report, kubernetes: FakeKubernetes, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 60}, said={"cpu_quota": 1.0})
    autoscaler = make(server, clock, report, settings(), Resizer(pod, clock, report))
    looks(autoscaler, clock, 6)
    assert kubernetes.cpu_in_effect == "3"
    assert server.scaled == []
    assert "m: 3 workers wanted, the cgroup still has 1 CPUs, and 3 are needed" in caplog.text
    server.said = {"cpu_quota": 3.0}
    looks(autoscaler, clock, 1)
    assert server.scaled == [("m", 3)]


def test_a_full_queue_leaves_the_kubelet_s_word(
    clock: Clock, report: Report, kubernetes: FakeKubernetes, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTorchServe({"m": 60})
    looks(make(server, clock, report, settings(), Resizer(pod, clock, report)), clock, 4)
    assert server.scaled[0] == ("m", 3)
    assert "no worker says its CPU quota; the kubelet's word counts" in caplog.text


def test_without_the_right_to_resize_it_serves_at_its_size(
    clock: Clock, report: Report, kubernetes: FakeKubernetes, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.mode = "forbidden"
    server = FakeTorchServe({"m": 60})
    looks(make(server, clock, report, settings(), Resizer(pod, clock, report)), clock, 30)
    assert server.scaled == []
    assert caplog.text.count("the service account may not PATCH pods/server-0/resize") == 1
    assert caplog.text.count("3 workers wanted, 1 CPUs are in effect") == 1


def test_the_pod_s_memory_limit_is_the_budget_and_the_fewest_workers_always_have_cpus(
    clock: Clock, report: Report, kubernetes: FakeKubernetes, pod: Pod
) -> None:
    server = FakeTorchServe({"m": 60}, num_workers={"m": 2}, memory_bytes=3 * GIB // 2, said={"pid": 1})
    config = settings()
    looks(make(server, clock, report, config, Resizer(pod, clock, report)), clock, 12)
    assert server.scaled == []
    assert kubernetes.spec_cpu == "2", "4 GiB for two workers of 1.5"


def test_every_decision_can_be_logged(clock: Clock, report: Report, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ts_handlers.autoscale")
    looks(make(FakeTorchServe({"m": 0}, metrics_problem=""), clock, report, settings()), clock, 3)
    assert caplog.text.count("m: 1 workers (steady)") == 2, "the first look has no rate yet"
