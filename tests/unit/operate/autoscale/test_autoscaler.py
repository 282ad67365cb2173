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


def at_once(work: Callable[[], T]) -> Future[T]:
    """Do in the foreground what is for the background: it is over at the next look."""
    future: Future[T] = Future()
    future.set_result(work())
    return future


@dataclass
class Scene:
    """What every test here needs.

    Attributes:
        clock: The time, which goes on by 2 s with each look.
        report: Where the autoscaler tells what it does.
        log: What it has said.
    """

    clock: Clock
    report: Report
    log: pytest.LogCaptureFixture

    def make(
        self,
        server: TorchServe,
        config: Settings,
        *,
        pod: Pod | None = None,
        start: Start = at_once,
        is_dry_run: bool = False,
    ) -> Autoscaler:
        """Return an autoscaler of that server, which scales that pod."""
        resizer = None if pod is None else Resizer(pod, self.clock, self.report)
        return Autoscaler(config, server, resizer, self.report, clock=self.clock, start=start, is_dry_run=is_dry_run)

    def look(self, autoscaler: Autoscaler, count: int) -> None:
        """Let it look so many times."""
        for _ in range(count):
            autoscaler.look()
            self.clock.now += 2.0

    def run(self, server: TorchServe, config: Settings, count: int, **others: Any) -> None:
        """Make an autoscaler and let it look so many times."""
        self.look(self.make(server, config, **others), count)


@pytest.fixture
def scene(clock: Clock, report: Report, caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(clock, report, caplog)


def test_workers_are_added_up_to_the_budget_and_that_is_said_once(scene: Scene) -> None:
    server = FakeTorchServe({"m": 60})
    scene.run(server, settings(cpus=3.0), 12)
    assert server.scaled == [("m", 3)]
    told = [record.getMessage() for record in scene.log.records if "stays at 3 workers (budget)" in record.getMessage()]
    assert len(told) == 1
    assert "5 wanted, stays: 3 CPUs for workers, 1 for each" in told[0]
    assert scene.log.text.count("the queue alone decides") == 1
    wanted = scene.report.registry.get_sample_value("ts_handlers_autoscale_workers", {"model": "m", "state": "wanted"})
    assert wanted == 3.0


def test_memory_that_is_known_limits_as_cpus_do(scene: Scene) -> None:
    server = FakeTorchServe({"m": 60}, memory_bytes=GIB)
    config = settings(budget={"memory_mb": 3000, "frontend_memory_mb": 900, "max_cpus": 8.0})
    scene.run(server, config, 12)
    assert server.scaled == [("m", 2)]
    hungry = FakeTorchServe({"m": 60}, memory_bytes=1000 * GIB)
    scene.run(hungry, settings(), 12)
    assert hungry.scaled == [], "this machine has less"


def test_models_share_one_budget_and_the_first_is_served_first_at_every_look(scene: Scene) -> None:
    server = FakeTorchServe({"a": 60, "b": 60})
    scene.run(server, settings("a", "b", cpus=5.0), 20)
    assert server.num_workers == {"a": 3, "b": 2}


def claiming(scene: Scene, count: int, cpus: float, memory_mb: int | None = None) -> Workers:
    config = settings(models={"m": {"cpus_per_worker": cpus, "memory_per_worker_mb": memory_mb}})
    workers = Workers("m", config, FakeTorchServe({}), scene.report, clock=float, start=at_once)
    workers.num_claimed = count
    return workers


def test_cpus_are_shared_with_other_models(scene: Scene) -> None:
    others = [claiming(scene, 2, 1.0), claiming(scene, 1, 2.0)]
    assert claimed_cpus(others) == 4.0
    limit = most_workers(claiming(scene, 1, 1.5), others, 7.5)
    assert (limit.workers, limit.reason) == (2, "7.5 CPUs for workers, 1.5 for each, beside 3 of other models")
    assert most_workers(claiming(scene, 0, 0.1), [], 0.3).workers == 3, "not 2 for want of a rounding error"


def test_memory_limits_where_it_is_scarcer_and_known(scene: Scene) -> None:
    others = [claiming(scene, 1, 1.0, 200)]
    limit = most_workers(claiming(scene, 1, 1.0, 300), others, 8.0, 1000 * 2**20)
    assert (limit.workers, limit.reason) == (2, "1000 MiB for workers, 300 for each, beside 1 of other models")
    assert most_workers(claiming(scene, 1, 1.0), [], 8.0, 1000 * 2**20).workers == 8
    assert most_workers(claiming(scene, 1, 1.0, 1), [], 8.0, 1000 * 2**20).workers == 8


def test_a_dry_run_says_what_it_would_do_and_does_nothing(scene: Scene) -> None:
    server = FakeTorchServe({"m": 60})
    scene.run(server, settings(), 6, is_dry_run=True)
    assert server.scaled == []
    assert scene.log.text.count("m: would go from 1 to 3 workers (load)") == 1


def test_a_dead_torchserve_is_waited_for_and_one_unknown_model_stops_no_other(scene: Scene) -> None:
    server = FakeTorchServe({"a": 60}, problem="nobody answers")
    autoscaler = scene.make(server, settings("a", "z"))
    scene.look(autoscaler, 5)
    assert scene.log.text.count("nobody answers") == 1
    assert scene.report.registry.get_sample_value("ts_handlers_autoscale_up", {"target": "torchserve"}) == 0.0
    server.problem = ""
    scene.look(autoscaler, 5)
    assert "TorchServe has no model z" in scene.log.text
    assert server.num_workers == {"a": 4}
    server.queued["z"] = 0
    scene.look(autoscaler, 1)
    assert "torchserve answers again" in scene.log.text


def test_a_refused_change_is_said_and_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeTorchServe({"m": 60})
    autoscaler = scene.make(server, settings())
    with monkeypatch.context() as patch:

        def refuse(model: str, num_workers: int) -> None:
            raise TorchServeError(f"TorchServe refuses {num_workers} workers for {model}")

        patch.setattr(server, "scale", refuse)
        scene.look(autoscaler, 3)
    assert "refuses 3 workers for m" in scene.log.text
    scene.look(autoscaler, 1)
    assert server.scaled == [("m", 3)], "a change that was not made has no cooldown"


def test_a_worker_that_does_not_start_is_given_up(scene: Scene) -> None:
    server = FakeTorchServe({"m": 60}, num_workers={"m": 2}, num_starting=1)
    autoscaler = scene.make(server, settings())
    scene.look(autoscaler, 92)
    assert server.scaled == [("m", 1)]
    assert "worker 9001 was not ready after 180 s and is removed; none is added for 300 s" in scene.log.text
    server.num_starting = 0
    scene.look(autoscaler, 100)
    assert server.scaled == [("m", 1)]
    assert "a worker could not be started lately" in scene.log.text
    scene.look(autoscaler, 60)
    assert server.scaled[1] == ("m", 3)


def test_the_only_worker_is_not_given_up(scene: Scene) -> None:
    server = FakeTorchServe({"m": 0}, num_starting=1)
    scene.run(server, settings(), 100)
    assert server.scaled == []
    assert scene.log.text.count("m: a worker is not ready after 180 s") == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"model": "somebody's"}, "m: its handler cannot hold a worker while it is removed, so workers are only added"),
        ({"pid": 7, "cpu_quota": None}, "m: worker 9001 was too busy to be held within 0.3 s; it stays"),
        ({}, "m: worker 9001 cannot be held; it stays: the queue is full"),
    ],
)
def test_a_worker_that_cannot_be_held_stays(scene: Scene, said: dict[str, Any], words: str) -> None:
    server = FakeTorchServe({"m": 0}, num_workers={"m": 2}, said=said)
    scene.run(server, settings(hold_timeout_s=0.3), 6)
    assert server.scaled == []
    assert words in scene.log.text


def test_a_worker_that_is_busy_for_long_keeps_no_other_model_waiting(scene: Scene) -> None:
    server = FakeTorchServe({"a": 0, "b": 0}, num_workers={"a": 2}, said={"model": "somebody's"})
    config = settings("a", "b")
    autoscaler = scene.make(server, config, start=in_background)
    server.is_free.clear()
    try:
        scene.look(autoscaler, 4)
        server.queued["b"] = 60
        scene.look(autoscaler, 4)
        assert server.num_workers == {"a": 2, "b": 4}
        assert " a: " not in scene.log.text, "its removal has not come to an end"
    finally:
        server.is_free.set()


def test_what_could_be_removed_counts_though_the_rest_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeTorchServe({"m": 0}, num_workers={"m": 4})

    def remove(_server: TorchServe, model: str, count: int, timeout_s: float) -> tuple[int, str]:
        server.num_workers[model] -= 1
        return 1, f"{model}: {count - 1} stays after {timeout_s:g} s"

    monkeypatch.setattr(workers, "remove_workers", remove)
    content = {"max_step_down": 2, "load_time_s": 1, "down_load_times": 2, "cooldown_load_times": 0}
    scene.run(server, settings(models={"m": content}), 3)
    assert "m: 4 -> 3 workers (idle)" in scene.log.text
    assert "m: 1 stays after 20 s" in scene.log.text
    changes = {"model": "m", "direction": "down"}
    assert scene.report.registry.get_sample_value("ts_handlers_autoscale_changes_total", changes) == 1.0


def test_workers_wait_for_the_cgroup(scene: Scene, kubernetes: FakeKubernetes, pod: Pod) -> None:
    server = FakeTorchServe({"m": 60}, said={"cpu_quota": 1.0})
    autoscaler = scene.make(server, settings(), pod=pod)
    scene.look(autoscaler, 6)
    assert kubernetes.cpu_in_effect == "3"
    assert server.scaled == []
    assert "m: 3 workers wanted, the cgroup still has 1 CPUs, and 3 are needed" in scene.log.text
    server.said = {"cpu_quota": 3.0}
    scene.look(autoscaler, 1)
    assert server.scaled == [("m", 3)]


def test_a_full_queue_leaves_the_kubelet_s_word(scene: Scene, kubernetes: FakeKubernetes, pod: Pod) -> None:
    server = FakeTorchServe({"m": 60})
    scene.run(server, settings(), 4, pod=pod)
    assert server.scaled[0] == ("m", 3)
    assert "no worker says its CPU quota; the kubelet's word counts" in scene.log.text


def test_without_the_right_to_resize_it_serves_at_its_size(scene: Scene, kubernetes: FakeKubernetes, pod: Pod) -> None:
    kubernetes.mode = "forbidden"
    server = FakeTorchServe({"m": 60})
    scene.run(server, settings(), 30, pod=pod)
    assert server.scaled == []
    assert scene.log.text.count("the service account may not PATCH pods/server-0/resize") == 1
    assert scene.log.text.count("3 workers wanted, 1 CPUs are in effect") == 1


def test_the_pod_s_memory_is_the_budget_and_the_fewest_workers_have_cpus(
    scene: Scene, kubernetes: FakeKubernetes, pod: Pod
) -> None:
    server = FakeTorchServe({"m": 60}, num_workers={"m": 2}, memory_bytes=3 * GIB // 2, said={"pid": 1})
    config = settings()
    scene.run(server, config, 12, pod=pod)
    assert server.scaled == []
    assert kubernetes.spec_cpu == "2", "4 GiB for two workers of 1.5"


def test_every_decision_can_be_logged(scene: Scene) -> None:
    scene.log.set_level(logging.DEBUG, "ts_handlers.autoscale")
    scene.run(FakeTorchServe({"m": 0}, metrics_problem=""), settings(), 3)
    assert scene.log.text.count("m: 1 workers (steady)") == 2, "the first look has no rate yet"
