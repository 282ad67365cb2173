"""The whole chain: TorchServe with our handler -> Prometheus with our rules -> KEDA's queries and the dashboard's."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.archives import CONFIG, pack_model, write_archive
from tests.e2e.conftest import ROOT, run_cli
from tests.prometheus import Element, Prometheus, find_program, quick_rules
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

pytestmark = pytest.mark.e2e

CONFIGS = ROOT / "configs"
RULES = tuple(CONFIGS / "prometheus" / name for name in ("recording.yml", "alerts.yml"))
WINDOWS = {"1m": "6s", "5m": "9s"}
"""Windows of the rules -> those of this test, which are full sooner; everything else of the rules is as it is served."""

VARIABLES = {"$namespace": "ts-handlers", "$model": "model", "$__rate_interval": "6s"}
"""What Grafana would put into the dashboard's expressions."""

NO_ELEMENT = {"GPU": "TorchServe exports it where there is a GPU"}
"""Title of each panel that has nothing here -> the reason."""

CLIENTS, BATCH_SIZE = 16, 4

SLOW = """
import time

from ts_handlers import TextClassificationHandler


class SlowHandler(TextClassificationHandler):
    def decode(self, instance):
        if instance == "break":
            raise RuntimeError("this one breaks the handler")
        return super().decode(instance)

    def transform(self, example):
        time.sleep(0.02)
        return super().transform(example)
"""
"""Our handler, slowed, so that a queue needs no load that would keep the machine busy."""

ECHO = "def handle(rows, context):\n    return None if rows is None else ['ok' for _ in rows]\n"


class FakeKubelet(BaseHTTPRequestHandler):
    """What the kubelet and kube-state-metrics would say of the pod; a fake, because no cluster runs here."""

    def do_GET(self) -> None:
        labels = 'namespace="ts-handlers",pod="torchserve-0",container="torchserve"'
        seconds = time.monotonic()
        values = {
            f"container_cpu_cfs_periods_total{{{labels}}}": 10 * seconds,
            f"container_cpu_cfs_throttled_periods_total{{{labels}}}": seconds,
            f"container_cpu_usage_seconds_total{{{labels}}}": seconds,
            f"container_memory_working_set_bytes{{{labels}}}": 1e9,
            f'kube_pod_container_resource_limits{{{labels},resource="cpu",unit="core"}}': 2,
            f'kube_pod_container_resource_limits{{{labels},resource="memory",unit="byte"}}': 2e9,
        }
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("".join(f"{name} {value}\n" for name, value in values.items()).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def kubelet() -> Iterator[str]:
    """Serve the fake; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeKubelet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def load(url: str) -> Iterator[None]:
    """Keep CLIENTS requests in flight; one of eight is no text, and one breaks the handler."""
    bodies = cycle([*[b"a text that is long", b"two words", b"three short words"] * 2, b"not \xff UTF-8", b"break"])
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            request = urllib.request.Request(url, next(bodies), {"Content-Type": "text/plain"})  # noqa: S310
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=60):  # noqa: S310
                pass

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
    for finished in clients:
        finished.result()


def keda_queries() -> dict[str, str]:
    """Return the queries of the ScaledObject, by the names of their triggers."""
    manifest = yaml.safe_load((CONFIGS / "kubernetes/components/keda/scaledobject.yaml").read_text(encoding="utf-8"))
    return {trigger["name"]: trigger["metadata"]["query"] for trigger in manifest["spec"]["triggers"]}


def dashboard_queries() -> dict[tuple[str, str], str]:
    """Return the expressions of the dashboard as Grafana would send them, by panel and letter."""
    dashboard = json.loads((CONFIGS / "grafana/torchserve.json").read_text(encoding="utf-8"))
    queries = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            queries[panel["title"], target["refId"]] = expression
    return queries


Answers = dict[Any, list[Element]]


@dataclass(frozen=True)
class Story:
    """What was answered at each time.

    Attributes:
        before: To KEDA, before anybody asked the model anything.
        loaded: To KEDA, under load.
        dashboard: To Grafana, under load.
        rules: What Prometheus says of its rules then.
        after: To KEDA, some seconds after the load.
        gone: To KEDA, when TorchServe has ended.
    """

    before: Answers
    loaded: Answers
    dashboard: Answers
    rules: list[dict[str, Any]]
    after: Answers
    gone: Answers


@pytest.fixture(scope="module")
def server(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A server, not started yet, with a model that is loaded by the test and one that nobody asks."""
    find_program("prometheus")
    store = tmp_path_factory.mktemp("store")
    pack_model(store / "model.mar", "tiny-distilbert", model_dirs, handler=SLOW)
    write_archive(store / "idle.mar", {"own.py": ECHO, CONFIG: "handler: {}\n"}, handler="own.py:handle")
    options = ("--cpus", 2, "--batch-size", BATCH_SIZE, "--max-batch-delay-ms", 1, "--disable-token-authorization")
    run_cli("configure", store, *options, *free_port_options())
    with tempfile.TemporaryDirectory(prefix="ts-") as temporary:  # short: worker sockets are in it
        scope = {"TEMP": temporary, "TS_HANDLERS_SCOPE": os.path.basename(temporary)}  # noqa: PTH119
        yield BackgroundServer(store, environ={**os.environ, **scope})
    shutil.rmtree(store)


@pytest.fixture(scope="module")
def story(server: BackgroundServer, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Start everything, ask before, under and after a load, and end TorchServe."""
    keda, panels = keda_queries(), dashboard_queries()
    rules = [quick_rules(path.read_text(encoding="utf-8"), WINDOWS) for path in RULES]
    metrics = server.config.metrics
    assert metrics is not None
    with kubelet() as kubelet_address:
        torchserve = {"targets": [f"{metrics.host}:{metrics.port}"], "labels": {"namespace": "ts-handlers"}}
        scrapes: list[dict[str, Any]] = [
            {"job_name": "torchserve", "static_configs": [torchserve]},
            {"job_name": "kubelet", "honor_labels": True, "static_configs": [{"targets": [kubelet_address]}]},
        ]
        with Prometheus(tmp_path_factory.mktemp("prometheus"), rules, scrapes) as prometheus:
            depth = keda["queue-depth"]

            def ask(queries: dict[Any, str]) -> Answers:
                return {name: prometheus.query(query) for name, query in queries.items()}

            with server:
                prometheus.wait_until(lambda it: it.value(depth) is not None, "a queue depth before any request")
                before = ask(keda)
                with load(f"{server.inference_url}/predictions/model"):
                    in_flight = f"{keda['in-flight']} > {CLIENTS * 0.8}"
                    prometheus.wait_until(lambda it: it.value(in_flight) is not None, "requests in flight")
                    prometheus.wait_until(lambda _: all_answer(ask(panels)), "an element of every panel")
                    loaded, dashboard = ask(keda), ask(panels)
                    evaluated = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
                prometheus.wait_until(lambda it: it.value(f"{depth} < 0.1") is not None, "an empty queue")
                after = ask(keda)
            prometheus.wait_until(lambda it: it.query(depth) == [], "nothing of a server that is gone")
            return Story(before, loaded, dashboard, evaluated, after, ask(keda))


def all_answer(answers: Answers) -> bool:
    """Say whether every panel that can have an element has one: rates want two samples of a counter."""
    return all(elements for (title, _), elements in answers.items() if title not in NO_ELEMENT)


def values_of(answers: Answers) -> dict[str, float]:
    """Return the one value of each KEDA query."""
    assert {name: len(elements) for name, elements in answers.items()} == dict.fromkeys(answers, 1)
    return {name: elements[0][1] for name, elements in answers.items()}


def test_a_model_that_nobody_asked_has_a_queue_of_0(story: Story) -> None:
    assert values_of(story.before) == {"queue-depth": 0, "in-flight": 0}


def test_queue_depth_rises_under_load_and_falls_after(story: Story) -> None:
    loaded, after = values_of(story.loaded), values_of(story.after)
    assert CLIENTS - 2 * BATCH_SIZE - 1 < loaded["queue-depth"] < CLIENTS
    assert loaded["queue-depth"] < loaded["in-flight"] < CLIENTS * 1.3
    assert after["queue-depth"] < 0.1


def test_a_server_that_is_gone_is_no_empty_queue(story: Story) -> None:
    assert story.gone == {"queue-depth": [], "in-flight": []}  # an error for KEDA, which falls back


def test_every_expression_of_the_dashboard_has_its_elements(story: Story) -> None:
    counts = {name: len(elements) for name, elements in story.dashboard.items()}
    codes = [labels["Code"] for labels, _ in story.dashboard["Rejected requests", "A"]]
    assert sorted(codes) == ["inference_failed", "invalid_utf8"]
    expected = {(title, letter): 0 if title in NO_ELEMENT else 1 for title, letter in counts}
    assert counts == expected | {("Rejected requests", "A"): 2}
    assert all(math.isfinite(value) for elements in story.dashboard.values() for _, value in elements)


def test_the_dashboard_shows_what_was_done(story: Story) -> None:
    shown = {name: elements[0][1] for name, elements in story.dashboard.items() if elements}
    assert 0.05 < shown["Error share", "A"] < 0.25  # one of eight
    assert shown["Batch fill", "A"] > 0.5
    assert 0 <= shown["Padding", "A"] < 1
    assert shown["Time of a batch", "B"] > 0.02 * BATCH_SIZE * 0.5  # p95: batches of bad rows alone are quick
    assert shown["Pods and workers", "A"] == shown["Pods and workers", "B"] == 1
    assert shown["Mean time of a request", "B"] < shown["Mean time of a request", "A"]
    assert shown["CPU throttling", "A"] == pytest.approx(0.1)


def test_every_rule_is_evaluated(story: Story) -> None:
    assert len(story.rules) > 20
    assert {rule["name"]: rule.get("lastError") for rule in story.rules if rule["health"] != "ok"} == {}
