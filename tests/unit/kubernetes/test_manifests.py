"""configs/kubernetes: rendered by the real kustomize. No cluster runs here; what it would refuse by schema is looked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from manifests.example import GPU_OPTIONS, MANIFESTS, configure, roots, write_model, written_files
from manifests.kubectl import RenderError, render
from manifests.schemas import VERSIONS, built_in, schema_errors

from tests.unit.kubernetes.conftest import DEPLOYMENT, SERVICE, Objects, container_of

RUNTIME = ("ServingRuntime", "ts-handlers")
SERVERS = ("cpu", "gpu", "mig")
AUTOSCALERS = ("hpa", "keda", "vpa")
KSERVE_MODES = ("kserve-knative", "kserve-standard-hpa", "kserve-standard-keda")


def overlay(name: str) -> Path:
    return MANIFESTS / "overlays" / name


def pod_specs(objects: Objects) -> Iterator[dict[str, Any]]:
    for (kind, _), found in objects.items():
        if kind == "Deployment":
            yield found["spec"]["template"]["spec"]


def kustomization(folder: Path, base: str, *components: str) -> Path:
    """Write an overlay of the base with these components."""
    folder.mkdir()
    for part in (base, "components"):
        (folder / part).symlink_to(MANIFESTS / part)
    content = {"resources": [base], "components": [f"components/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_every_built_in_object_is_valid(rendered: Callable[[Path], Objects]) -> None:
    found = built_in(one for root in roots() for one in rendered(root).values())
    assert len(found) > len(SERVERS) * 4
    assert list(schema_errors(found, (VERSIONS[0], VERSIONS[-1]))) == []


def test_every_object_is_labelled(rendered: Callable[[Path], Objects]) -> None:
    for root in roots():
        for key, found in rendered(root).items():
            labels = found["metadata"].get("labels", {})
            assert labels.get("app.kubernetes.io/part-of") == "ts-handlers", (root, key)
            assert str(labels.get("app.kubernetes.io/name", "")).startswith("torchserve"), (root, key)


def test_files_that_configure_writes_are_up_to_date() -> None:
    for file, text in written_files().items():
        assert file.read_text(encoding="utf-8") == text, f"{file} is old: scripts/check-manifests --write"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cpu", ("--headroom", "1")),
        ("cpu-keda", ("--autoscaler", "keda", "--min-replicas", "1", "--headroom", "1")),
        ("gpu", GPU_OPTIONS),
        ("kserve-knative", ("--kserve",)),
        ("kserve-standard", ("--kserve", "--autoscaler", "hpa")),
        ("kserve-standard-keda", ("--kserve", "--autoscaler", "keda")),
    ],
)
def test_an_overlay_has_the_numbers_that_configure_gives_its_example(
    name: str, options: tuple[str, ...], rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    write_model(tmp_path / "model-store")
    configure(tmp_path / "model-store", "--kubernetes", tmp_path / "out", *options)
    written = rendered(tmp_path / "out")
    ours = {key: found for key, found in rendered(overlay(name)).items() if key in written}
    assert without_tags(ours) == without_tags(written)


def without_tags(objects: Objects) -> Any:
    text = json.dumps({f"{kind} {name}": found for (kind, name), found in objects.items()}, sort_keys=True)
    return json.loads(text.replace(":0.1.0-gpu", "").replace(":0.1.0", ""), object_hook=_without_order)


def _without_order(found: dict[str, Any]) -> dict[str, Any]:
    """Sort volumes: a patch puts those it changes first."""
    if isinstance(found.get("volumes"), list):
        found["volumes"] = sorted(found["volumes"], key=lambda volume: str(volume["name"]))
    return found


@pytest.mark.parametrize("pair", [*combinations(AUTOSCALERS, 2), *combinations(AUTOSCALERS[::-1], 2)])
def test_two_autoscalers_do_not_render(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="ts-handlers~1scaled-by"):
        render(kustomization(tmp_path / "both", "base", *pair))


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_each_autoscaler_renders_alone_and_owns_the_number_of_pods(
    name: str, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    objects = rendered(kustomization(tmp_path / "one", "base", name))
    assert objects[DEPLOYMENT]["metadata"]["annotations"]["ts-handlers/scaled-by"] == name
    assert ("replicas" in objects[DEPLOYMENT]["spec"]) == (name == "vpa")


@pytest.mark.parametrize("pair", [("vpa", "worker-autoscaler"), ("worker-autoscaler", "vpa")])
def test_two_that_resize_the_pod_do_not_render(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="testing value .* failed"):
        render(kustomization(tmp_path / "both", "base", *pair))


def test_the_worker_autoscaler_goes_with_keda_and_the_pod_stays_guaranteed(
    rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    objects = rendered(kustomization(tmp_path / "one", "base", "podmonitor", "keda", "worker-autoscaler"))
    pod = objects[DEPLOYMENT]["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["resources"]["requests"] == container["resources"]["limits"], container["name"]
    rules = objects["Role", "torchserve-autoscaler"]["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [(["pods"], ["get"]), (["pods/resize"], ["patch"])]
    (subject,) = objects["RoleBinding", "torchserve-autoscaler"]["subjects"]
    assert subject["name"] == pod["serviceAccountName"]
    assert [each["port"] for each in objects["PodMonitor", "torchserve"]["spec"]["podMetricsEndpoints"]] == [
        "metrics",
        "autoscaler",
    ]


@pytest.mark.parametrize("pair", list(combinations(("gpu", "mig", "time-slicing"), 2)))
def test_two_devices_do_not_render(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="ts-handlers~1device"):
        render(kustomization(tmp_path / "both", "base", *pair))


@pytest.mark.parametrize("pair", list(combinations(KSERVE_MODES, 2)))
def test_two_modes_of_kserve_do_not_render(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="ts-handlers~1scaled-by"):
        render(kustomization(tmp_path / "both", "kserve", *pair))


@pytest.mark.parametrize(
    ("name", "resource"),
    [("gpu", "nvidia.com/gpu"), ("mig", "nvidia.com/mig-1g.5gb"), ("time-slicing", "nvidia.com/gpu.shared")],
)
def test_a_device_is_asked_for_by_its_name(
    name: str, resource: str, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    resources = container_of(rendered(kustomization(tmp_path / "one", "base", name)))["resources"]
    assert [resources[part].get(resource) for part in ("requests", "limits")] == ["1", "1"]
    assert [key for key in resources["limits"] if key.startswith("nvidia.com/")] == [resource]


def test_the_service_has_inference_alone(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("cpu"))
    ports = {port["name"]: port["port"] for port in objects["Service", "torchserve"]["spec"]["ports"]}
    assert ports == {"http": 8080, "grpc": 7070}
    declared = {port["name"]: port["containerPort"] for port in container_of(objects)["ports"]}
    assert declared == {**ports, "metrics": 8082}
    ingress = objects["NetworkPolicy", "torchserve"]["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} == set(declared)


def test_every_selector_finds_the_servers_pods(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("cpu"))
    template = objects[DEPLOYMENT]["spec"]["template"]
    selectors = [
        objects[DEPLOYMENT]["spec"]["selector"]["matchLabels"],
        objects["Service", "torchserve"]["spec"]["selector"],
        objects["PodDisruptionBudget", "torchserve"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy", "torchserve"]["spec"]["podSelector"]["matchLabels"],
        template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= template["metadata"]["labels"].items() for selector in selectors)
    assert objects["HorizontalPodAutoscaler", "torchserve"]["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT[1]


@pytest.mark.parametrize("name", SERVERS)
def test_pods_keep_to_the_restricted_standard(name: str, rendered: Callable[[Path], Objects]) -> None:
    specs = list(pod_specs(rendered(overlay(name))))
    assert specs
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec["automountServiceAccountToken"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_everything_the_server_writes_to_is_a_volume(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("cpu"))
    writable = {mount["mountPath"] for mount in container_of(objects)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/run/torchserve"}  # noqa: S108
    assert "--run-dir=/run/torchserve" in container_of(objects)["command"]
    volumes = objects[DEPLOYMENT]["spec"]["template"]["spec"]["volumes"]
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes if "emptyDir" in volume)


@pytest.mark.parametrize("name", ["cpu", "kserve-standard", "kserve-standard-keda"])
def test_the_grace_period_holds_all_that_happens_in_it(name: str, rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay(name))
    if name == "cpu":
        container, spec = container_of(objects), objects[DEPLOYMENT]["spec"]["template"]["spec"]
        command = container["command"]
    else:
        spec = objects[SERVICE]["spec"]["predictor"]
        container, command = spec["model"], objects[RUNTIME]["spec"]["containers"][0]["command"]
    drain = seconds(container["lifecycle"]["preStop"]["exec"]["command"], "--timeout-s=")
    stop = seconds(command, "--stop-grace-s=")
    assert drain + stop <= spec["terminationGracePeriodSeconds"] - 10


def seconds(command: list[str], option: str) -> int:
    return next(int(word.removeprefix(option)) for word in command if word.startswith(option))


def test_probes_give_up_after_the_command_they_run(rendered: Callable[[Path], Objects]) -> None:
    for container in (
        container_of(rendered(overlay("cpu"))),
        rendered(overlay("kserve-knative"))[RUNTIME]["spec"]["containers"][0],
    ):
        for name in ("startupProbe", "readinessProbe"):
            probe = container[name]
            assert probe["exec"]["command"][:2] == ["ts-handlers", "ready"]
            assert seconds(probe["exec"]["command"], "--timeout-s=") < probe["timeoutSeconds"]


def test_knative_gets_nothing_that_it_refuses(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("kserve-knative"))
    container = objects[RUNTIME]["spec"]["containers"][0]
    assert len(container["ports"]) == 1
    assert not {"lifecycle", "resizePolicy"} & (set(container) | set(objects[SERVICE]["spec"]["predictor"]["model"]))
    assert "terminationGracePeriodSeconds" not in objects[SERVICE]["spec"]["predictor"]
    annotations = objects[SERVICE]["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Knative"
    assert annotations["autoscaling.knative.dev/class"] == "kpa.autoscaling.knative.dev"
    assert objects[SERVICE]["spec"]["predictor"]["minReplicas"] == 0


def test_keda_is_alone_with_the_deployment_of_kserve(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("kserve-standard-keda"))
    assert objects[SERVICE]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert not {"minReplicas", "scaleMetric"} & set(objects[SERVICE]["spec"]["predictor"])
    assert objects["ScaledObject", "torchserve"]["spec"]["scaleTargetRef"]["name"] == "torchserve-predictor"


def test_headroom_is_as_large_as_a_server_and_serves_nobody(rendered: Callable[[Path], Objects]) -> None:
    objects = rendered(overlay("cpu"))
    spec = objects["Deployment", "torchserve-headroom"]["spec"]["template"]
    server = container_of(objects)["resources"]["requests"]
    held = spec["spec"]["containers"][0]["resources"]["requests"]
    assert held == {name: server[name] for name in ("cpu", "memory")}
    selector = objects["Service", "torchserve"]["spec"]["selector"]
    assert not selector.items() <= spec["metadata"]["labels"].items()
    priority = objects["PriorityClass", spec["spec"]["priorityClassName"]]
    assert -10 <= priority["value"] < 0  # the cluster autoscaler ignores pods below -10
    assert priority["preemptionPolicy"] == "Never"
