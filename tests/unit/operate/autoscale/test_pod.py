"""The pod's resize, against a fake API server over real HTTPS."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes_api import FakeKubernetes, Mode, serve_kubernetes
from ts_handlers.errors import ConfigError
from ts_handlers.operate.autoscale.pod import Pod, PodError, Resizer, parse_pod
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import KubernetesSettings

if TYPE_CHECKING:
    from tests.unit.operate.autoscale.conftest import Clock


@pytest.fixture
def resizer(pod: Pod, clock: Clock, report: Report) -> Resizer:
    return Resizer(pod, clock, report)


def cpus_of(resizer: Resizer, wanted: float) -> float:
    """Return the CPUs in effect after one more call."""
    resizer.reconcile(wanted)
    return resizer.cpus


def failures(report: Report, reason: str) -> float | None:
    return report.registry.get_sample_value("ts_handlers_autoscale_resize_failures_total", {"reason": reason})


def test_an_accepted_resize_is_granted_once_it_is_in_effect(
    resizer: Resizer, kubernetes: FakeKubernetes, clock: Clock
) -> None:
    resizer.reconcile(2.5)
    assert (resizer.cpus, resizer.look_in_s) == (1.0, 0.0), (
        "the old size holds until the kubelet has applied the new one"
    )
    assert kubernetes.patches == ["2500m"]
    (_, _, body) = kubernetes.requests[-1]
    assert body == {
        "spec": {
            "containers": [
                {"name": "torchserve", "resources": {"requests": {"cpu": "2500m"}, "limits": {"cpu": "2500m"}}}
            ]
        }
    }, "a Guaranteed pod stays one"
    assert cpus_of(resizer, 2.5) == 2.5
    assert resizer.memory_bytes == 4 * 2**30
    looks = len(kubernetes.requests)
    clock.now += 5
    resizer.reconcile(2.5)
    assert len(kubernetes.requests) == looks, "a settled pod is not looked at every time"
    assert cpus_of(resizer, 1.0) == 2.5
    assert cpus_of(resizer, 1.0) == 1.0


def test_the_request_keeps_its_share_of_the_limit(resizer: Resizer, kubernetes: FakeKubernetes) -> None:
    kubernetes.pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}}
    resizer.reconcile(3.0)
    (_, _, body) = kubernetes.requests[-1]
    assert body["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "750m"}, "limits": {"cpu": "3"}}


def test_a_deferred_resize_is_said_once_and_granted_when_there_is_room(
    resizer: Resizer, kubernetes: FakeKubernetes, clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.mode = "defer"
    for _ in range(5):
        assert cpus_of(resizer, 4.0) == 1.0
        clock.now += 6
    assert kubernetes.patches == ["4"], "Kubernetes keeps the wish; it is not repeated"
    assert [record.getMessage() for record in caplog.records if "deferred" in record.message] == [
        "4 CPUs are deferred: Node didn't have 4; 1 stay in effect until then"
    ]
    assert failures(report, "deferred") == 1.0
    kubernetes.mode = "accept"
    resizer.reconcile(4.0)
    clock.now += 6
    assert cpus_of(resizer, 4.0) == 4.0


def test_a_deferred_resize_that_is_not_wanted_any_longer_is_taken_back(
    resizer: Resizer, kubernetes: FakeKubernetes
) -> None:
    kubernetes.mode = "defer"
    resizer.reconcile(4.0)
    resizer.reconcile(1.0)
    assert (kubernetes.patches, kubernetes.spec_cpu) == (["4", "1"], "1")


def test_an_infeasible_resize_is_taken_back_and_tried_again_later(
    resizer: Resizer, kubernetes: FakeKubernetes, clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.mode = "infeasible"
    for _ in range(6):
        assert cpus_of(resizer, 8.0) == 1.0
        clock.now += 3
    assert kubernetes.patches == ["8", "1"], "the spec says what the pod has"
    assert "8 CPUs are infeasible: Node didn't have 8; 1 stay in effect" in caplog.text
    assert failures(report, "infeasible") == 1.0
    kubernetes.mode = "accept"
    resizer.reconcile(2.0)
    assert kubernetes.patches[-1] == "2", "a smaller size is another question"
    clock.now += 40
    resizer.reconcile(8.0)
    assert kubernetes.patches[-1] == "8"


def test_a_resize_that_fails_on_the_node_is_said(
    resizer: Resizer, kubernetes: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.mode = "error"
    resizer.reconcile(2.0)
    assert cpus_of(resizer, 2.0) == 1.0
    assert "the resize to 2 CPUs fails: cgroup write failed; 1 are in effect" in caplog.text


@pytest.mark.parametrize(
    ("mode", "reason", "words"),
    [
        ("forbidden", "forbidden", "it needs get on pods and patch on pods/resize"),
        ("invalid", "refused", "Pod QOS Class may not change"),
        ("slow", "unreachable", "within 0.5 s"),
        ("broken", "refused", "etcdserver: request timed out"),
    ],
)
def test_what_goes_wrong_is_said_once_and_tried_less_and_less_often(
    resizer: Resizer,
    kubernetes: FakeKubernetes,
    clock: Clock,
    report: Report,
    caplog: pytest.LogCaptureFixture,
    mode: Mode,
    reason: str,
    words: str,
) -> None:
    assert cpus_of(resizer, 1.0) == 1.0
    kubernetes.mode = mode
    for _ in range(20):
        assert cpus_of(resizer, 2.0) == 1.0, "the size that was known last"
        clock.now += 1.0
    assert failures(report, reason) == 4.0, "after 0, 2, 6 and 14 s"
    said = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert len(said) == 1
    assert said[0].endswith("the pod keeps its size")
    kubernetes.mode = "accept"
    clock.now += 300
    resizer.reconcile(2.0)
    assert cpus_of(resizer, 2.0) == 2.0
    assert "kubernetes answers again" in caplog.text


def test_an_expired_token_is_said_and_the_rotated_one_is_read(
    resizer: Resizer, kubernetes: FakeKubernetes, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    kubernetes.token = "second"  # the file still has the first
    assert cpus_of(resizer, 2.0) == 0.0
    assert "the API server does not take the service account's token (status 401, Unauthorized)" in caplog.text
    kubernetes.rotate_token("third")
    clock.now += 3
    resizer.reconcile(2.0)
    assert cpus_of(resizer, 2.0) == 2.0
    assert kubernetes.num_refused == 1


def test_a_dead_api_server_keeps_the_size(
    kubernetes: FakeKubernetes, clock: Clock, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_kubernetes(kubernetes) as url:
        settings = KubernetesSettings(api_url=url, service_account=str(kubernetes.account), pod="server-0")
        resizer = Resizer(Pod(settings), clock, report)
        assert cpus_of(resizer, 1.0) == 1.0
    assert cpus_of(resizer, 2.0) == 1.0
    assert "Connection refused" in caplog.text


def test_an_api_server_of_another_authority_is_not_trusted(
    pod: Pod, kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    import trustme

    trustme.CA().cert_pem.write_to_path(str(kubernetes.account / "ca.crt"))
    with pytest.raises(PodError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        pod.read()
    assert caught.value.failure == "unreachable"
    (kubernetes.account / "ca.crt").write_text("no certificate")
    with pytest.raises(PodError, match="ca.crt cannot be used"):
        pod.read()


def test_a_container_without_a_limit_is_left_alone(resizer: Resizer, kubernetes: FakeKubernetes) -> None:
    kubernetes.pod["spec"]["containers"][0]["resources"] = {}
    assert cpus_of(resizer, 2.0) == math.inf
    assert kubernetes.patches == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "server"}, "the pod has no container torchserve; kubernetes.container is one of: server, other"),
        (
            {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]},
            "a resize would restart torchserve",
        ),
        ({"resources": {"limits": {"cpu": "many"}}}, "cannot be understood"),
    ],
)
def test_a_pod_that_cannot_be_resized_says_why(
    pod: Pod, kubernetes: FakeKubernetes, change: dict[str, Any], words: str
) -> None:
    kubernetes.pod["spec"]["containers"][0].update(change)
    with pytest.raises(PodError, match=words) as caught:
        pod.read()
    assert caught.value.failure == "unusable"


def test_a_pod_that_is_not_there_is_said(kubernetes: FakeKubernetes) -> None:
    with serve_kubernetes(kubernetes) as url:
        settings = KubernetesSettings(api_url=url, service_account=str(kubernetes.account), pod="server-9")
        with pytest.raises(PodError, match="pods/server-9 not found.*is it a pod's name") as caught:
            Pod(settings).read()
    assert caught.value.failure == "missing"


def test_an_older_kubelet_that_does_not_say_what_is_applied_is_taken_at_its_spec() -> None:
    pod = {"spec": {"containers": [{"name": "torchserve", "resources": {"limits": {"cpu": "1500m"}}}]}}
    assert parse_pod(pod, "torchserve").in_effect == 1.5


def test_a_pod_names_itself_by_its_environment(kubernetes: FakeKubernetes) -> None:
    settings = KubernetesSettings(service_account=str(kubernetes.account))
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert str(Pod(settings, {**cluster, "HOSTNAME": "server-1"})) == "container torchserve of pod models/server-1"
    with pytest.raises(ConfigError, match="which pod is this"):
        Pod(settings, cluster)
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST is not set"):
        Pod(settings, {"POD_NAME": "server-1"})
    with pytest.raises(ConfigError, match="is a service account mounted"):
        Pod(KubernetesSettings(service_account=str(kubernetes.account / "none")), cluster)
