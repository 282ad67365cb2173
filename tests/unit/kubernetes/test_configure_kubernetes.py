"""`configure --kubernetes` and `--kserve`: manifests and config.properties say the same."""

from __future__ import annotations

import configparser
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from manifests.example import MANIFESTS, configure, write_model

from tests.unit.kubernetes.conftest import DEPLOYMENT, SERVICE, Objects, container_of
from ts_handlers.cli import main
from ts_handlers.operate.autoscale.settings import parse_settings
from ts_handlers.operate.configure.kubernetes import source
from ts_handlers.operate.configure.kubernetes.thresholds import utilization_of
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN
from ts_handlers.operate.quantity import format_cpus
from ts_handlers.operate.torchserve import properties


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two models: one small, one three times as large and three times as busy."""
    write_model(tmp_path / "model-store", "small", 300)
    write_model(tmp_path / "model-store", "large", 900, weight=3)
    return tmp_path / "model-store"


def values_of(folder: Path) -> dict[str, str]:
    return properties.parse((folder / "config.properties").read_text())


def workers_of(values: dict[str, str]) -> dict[str, int]:
    return {name: versions["1.0"]["minWorkers"] for name, versions in json.loads(values["models"]).items()}


def mistake(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["configure", *map(str, words)]) == 2
    return capsys.readouterr().err


def check_numbers(limits: dict[str, str], values: dict[str, str], cpus: float) -> None:
    """Hold a pod's resources against its config.properties: the worker arithmetic and the memory of the builds."""
    workers = workers_of(values)
    memory_mb = int(limits["memory"].removesuffix("Mi"))
    heap_mb = int(values["vmargs"].partition("-Xmx")[2].partition("m")[0])
    assert limits["cpu"] == format_cpus(cpus)
    assert f"-XX:ActiveProcessorCount={int(cpus) if cpus == int(cpus) else int(cpus) + 1} " in values["vmargs"]
    needed_mb = (workers["small"] * 300 + workers["large"] * 900) * RSS_MARGIN
    assert memory_mb * (1 - HEAD_ROOM) >= needed_mb + heap_mb + JVM_OVERHEAD_MB
    assert (memory_mb - 64) * (1 - HEAD_ROOM) < needed_mb + heap_mb + JVM_OVERHEAD_MB
    assert heap_mb == max(256, min(memory_mb // 8, 1024))


@pytest.mark.parametrize(("cpus", "workers"), [(None, 2), (4.0, 4), (5.5, 5), (1.5, 2)])
def test_a_pod_has_the_numbers_of_its_config_properties(
    cpus: float | None, workers: int, store: Path, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    configure(store, "--kubernetes", tmp_path / "out", *(() if cpus is None else ("--cpus", cpus)))
    objects = rendered(tmp_path / "out")
    values = values_of(tmp_path / "out")
    mounted = next(found for (kind, _), found in objects.items() if kind == "ConfigMap")["data"]
    assert properties.parse(mounted["config.properties"]) == values
    assert sum(workers_of(values).values()) == workers
    resources = container_of(objects)["resources"]
    assert resources["requests"] == resources["limits"]
    check_numbers(resources["limits"], values, cpus or 2)
    hpa = objects["HorizontalPodAutoscaler", "torchserve"]["spec"]
    target = hpa["metrics"][0]["containerResource"]["target"]["averageUtilization"]
    assert target == int(100 * min(utilization_of(count) for count in workers_of(values).values()))


def test_kserve_has_the_numbers_of_its_config_properties(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    options = ("--cpus", 4, "--profile", "latency", "--batch-size", 2, "--storage-uri", "s3://models/two")
    configure(store, "--kserve", "--kubernetes", tmp_path / "out", *options)
    predictor = rendered(tmp_path / "out")[SERVICE]["spec"]["predictor"]
    values = values_of(tmp_path / "config")
    check_numbers(predictor["model"]["resources"]["limits"], values, 4)
    assert 0 < predictor["scaleTarget"] <= predictor["containerConcurrency"] <= int(values["job_queue_size"])
    assert predictor["model"]["storageUri"] == "s3://models/two"
    assert values["model_store"] == "/mnt/models/model-store"
    assert values["metrics_config"] == "/mnt/models/config/metrics.yaml"
    assert (tmp_path / "config" / "metrics.yaml").is_file()
    assert not (tmp_path / "out" / "config.properties").exists()


def test_kserve_alone_lays_out_what_storage_uri_wants(store: Path, tmp_path: Path) -> None:
    assert f"copy {tmp_path} to where storageUri points" in configure(store, "--kserve", "--gpus", 1)
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == ["config.properties", "metrics.yaml"]
    assert values_of(tmp_path / "config")["number_of_gpu"] == "1"


def test_keda_asks_for_each_model_by_the_depth_of_its_queue(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    configure(store, "--kserve", "--kubernetes", tmp_path / "out", "--autoscaler", "keda", "--cpus", 4)
    found = rendered(tmp_path / "out")["ScaledObject", "torchserve"]["spec"]["triggers"]
    workers = workers_of(values_of(tmp_path / "config"))
    labels = {name: f'{{namespace="ts-handlers",model_name="{name}"}}' for name in workers}
    assert {trigger["metadata"]["query"]: float(trigger["metadata"]["threshold"]) for trigger in found} == {
        **{f"model:ts_queue_depth:rate1m{labels[name]}": count for name, count in workers.items()},
        **{
            f"model:ts_in_flight:rate1m{labels[name]}": round(count * utilization_of(count), 1)
            for name, count in workers.items()
        },
    }
    assert len({trigger["name"] for trigger in found}) == 4


def test_a_gpu_is_counted_and_neither_hpa_nor_vpa_looks_at_its_cpus(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(store, "--kubernetes", tmp_path / "out", "--gpus", 2, "--autoscaler", "none", "--min-replicas", 3)
    objects = rendered(tmp_path / "out")
    values = values_of(tmp_path / "out")
    assert container_of(objects)["resources"]["limits"]["nvidia.com/gpu"] == values["number_of_gpu"] == "2"
    assert workers_of(values) == {"small": 2, "large": 2}
    assert container_of(objects)["resources"]["limits"]["cpu"] == "4"
    assert objects[DEPLOYMENT]["spec"]["replicas"] == 3
    mig = ("--gpus", 1, "--gpu-resource", "nvidia.com/mig-2g.10gb", "--autoscaler", "none")
    configure(store, "--kubernetes", tmp_path / "mig", *mig)
    assert container_of(rendered(tmp_path / "mig"))["resources"]["requests"]["nvidia.com/mig-2g.10gb"] == "1"
    for autoscaler in ("hpa", "vpa"):
        words = (store, "--kubernetes", tmp_path / "no", "--gpus", 1, "--autoscaler", autoscaler)
        assert "lets GPUs compute; choose keda" in mistake(capsys, *words)


def test_a_pod_that_grows_has_memory_for_all_its_workers(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    configure(store, "--kubernetes", tmp_path / "out", "--cpus", 2, "--max-cpus", 4)
    configure(store, "--kubernetes", tmp_path / "four", "--cpus", 4, "--autoscaler", "keda")
    objects, grown = rendered(tmp_path / "out"), rendered(tmp_path / "four")
    limits, large = (container_of(found)["resources"]["limits"] for found in (objects, grown))
    assert (limits["cpu"], limits["memory"]) == ("2", large["memory"])
    values, most = (values_of(tmp_path / name) for name in ("out", "four"))
    mounted = next(
        found["data"] for (kind, name), found in objects.items() if kind == "ConfigMap" and "autoscale" in name
    )
    settings = yaml.safe_load(mounted["autoscale.yaml"])
    assert {name: model["max_workers"] for name, model in settings["models"].items()} == workers_of(most)
    assert {name: model["cpus_per_worker"] for name, model in settings["models"].items()} == {"small": 1, "large": 1}
    assert settings["budget"]["max_cpus"] == 4
    heap_mb = int(values["vmargs"].partition("-Xmx")[2].partition("m")[0])
    assert settings["budget"]["frontend_memory_mb"] == heap_mb + JVM_OVERHEAD_MB
    needed_mb = sum(model["max_workers"] * model["memory_per_worker_mb"] for model in settings["models"].values())
    assert needed_mb + heap_mb + JVM_OVERHEAD_MB <= int(limits["memory"].removesuffix("Mi"))
    scaled, scaled_large = (found["ScaledObject", "torchserve"]["spec"]["triggers"] for found in (objects, grown))
    assert scaled == scaled_large  # a pod grows first
    parse_settings(settings, "autoscale.yaml")


def test_the_vpa_never_goes_below_the_plan(store: Path, rendered: Callable[[Path], Objects], tmp_path: Path) -> None:
    configure(store, "--kubernetes", tmp_path / "out", "--autoscaler", "vpa", "--cpus", 4)
    objects = rendered(tmp_path / "out")
    policy = objects["VerticalPodAutoscaler", "torchserve"]["spec"]["resourcePolicy"]["containerPolicies"][0]
    limits = container_of(objects)["resources"]["limits"]
    assert policy["minAllowed"] == {name: limits[name] for name in ("cpu", "memory")}
    assert policy["maxAllowed"]["cpu"] == "16"


def test_images_namespace_and_headroom_are_as_asked_for(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path
) -> None:
    digest = f"sha256:{'ab' * 32}"
    options = ("--image", "example.org:5000/ml/server:1.2", "--models-image", f"example.org/models@{digest}")
    configure(store, "--kubernetes", tmp_path / "out", *options, "--namespace", "ml", "--headroom", 2)
    objects = rendered(tmp_path / "out")
    spec = objects[DEPLOYMENT]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "example.org:5000/ml/server:1.2"
    assert spec["initContainers"][0]["image"] == f"example.org/models@{digest}"
    assert objects[DEPLOYMENT]["metadata"]["namespace"] == "ml"
    held = objects["Deployment", "torchserve-headroom"]["spec"]
    assert held["replicas"] == 2
    requests = spec["containers"][0]["resources"]["requests"]
    assert held["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        name: requests[name] for name in ("cpu", "memory")
    }


def test_times_follow_the_slowest_model(tmp_path: Path, rendered: Callable[[Path], Objects]) -> None:
    write_model(tmp_path / "store")
    options = ("--response-timeout-s", 300, "--startup-timeout-s", 900)
    configure(tmp_path / "store", "--kubernetes", tmp_path / "out", *options)
    objects = rendered(tmp_path / "out")
    spec, container = objects[DEPLOYMENT]["spec"], container_of(objects)
    probe = container["startupProbe"]
    assert 900 < probe["failureThreshold"] * probe["periodSeconds"] < spec["progressDeadlineSeconds"]
    assert "--timeout-s=310" in container["lifecycle"]["preStop"]["exec"]["command"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 310


def test_a_second_run_replaces_the_first_and_nobody_elses_files(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    configure(store, "--kubernetes", out)
    (out / "ts-handlers" / "base" / "service.yaml").write_text("broken")
    configure(store, "--kubernetes", out, "--cpus", 4)
    assert "cpu: '4'" in (out / "deployment.yaml").read_text()
    assert (out / "ts-handlers" / "base" / "service.yaml").read_text() != "broken"
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    (out / "kustomization.yaml").write_text("resources: [mine.yaml]\n")
    assert "was not written by this command" in mistake(capsys, store, "--kubernetes", out)
    (tmp_path / "other" / "ts-handlers").mkdir(parents=True)
    assert "was not written by this command" in mistake(capsys, store, "--kubernetes", tmp_path / "other")
    configure(store, "--kubernetes", tmp_path / "other", "--force")


def test_the_base_can_be_a_folder_or_a_url(
    store: Path, rendered: Callable[[Path], Objects], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(store, "--kubernetes", tmp_path / "out", "--kubernetes-base", MANIFESTS)
    assert not (tmp_path / "out" / "ts-handlers").exists()
    assert DEPLOYMENT in rendered(tmp_path / "out")
    url = "https://example.org/ml/ts-handlers//configs/kubernetes"
    configure(store, "--kubernetes", tmp_path / "url", "--kubernetes-base", f"{url}?ref=v1")
    kustomization = yaml.safe_load((tmp_path / "url" / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [f"{url}/base?ref=v1"]
    assert kustomization["components"] == [f"{url}/components/hpa?ref=v1"]
    said = mistake(capsys, store, "--kubernetes", tmp_path / "no", "--kubernetes-base", tmp_path)
    assert "give the folder configs/kubernetes" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kubernetes", "OUT", "--launcher"), "--launcher binds workers to the CPUs of this machine"),
        (("--kubernetes", "OUT", "--output", "FILE"), "--output is for a machine"),
        (("--kubernetes", "OUT", "--inference-port", "9090"), "--inference-port 9090: a pod's addresses"),
        (("--kubernetes", "OUT", "--min-replicas", "5", "--max-replicas", "4"), "--min-replicas 5 is more than"),
        (("--kubernetes", "OUT", "--min-replicas", "0"), "nothing wakes the first pod"),
        (("--kubernetes", "OUT", "--autoscaler", "kpa"), "--autoscaler kpa without --kserve"),
        (("--kubernetes", "OUT", "--storage-uri", "s3://x"), "--storage-uri is for --kserve"),
        (("--kubernetes", "OUT", "--kserve", "--autoscaler", "vpa"), "--autoscaler vpa with --kserve"),
        (("--kubernetes", "OUT", "--kserve", "--headroom", "1"), "--headroom is not for --kserve"),
        (("--kubernetes", "OUT", "--gpu-resource", "nvidia.com/gpu.shared"), "without --gpus; say how many"),
        (("--kubernetes", "OUT", "--max-cpus", "1"), "--max-cpus 1 is less than the 2 CPUs a pod starts with"),
        (("--kubernetes", "OUT", "--max-cpus", "-1"), "--max-cpus -1: give a number above 0"),
        (("--kubernetes", "OUT", "--max-cpus", "4", "--autoscaler", "hpa"), "--autoscaler hpa with --max-cpus"),
        (("--kubernetes", "OUT", "--max-cpus", "4", "--workers", "2"), "--workers 2 with --max-cpus"),
        (("--kubernetes", "OUT", "--max-cpus", "4", "--kserve"), "--max-cpus is not for --kserve"),
        (("--kserve", "--max-replicas", "3"), "--max-replicas is for the overlay that --kubernetes OUT writes"),
        (("--headroom", "3"), "--headroom is for the overlay that --kubernetes OUT writes"),
        (("--kubernetes", "/proc/no"), "cannot make /proc/no"),
    ],
)
def test_what_cannot_be_is_said(
    words: tuple[str, ...], said: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / word) if word in {"OUT", "FILE"} else word for word in words]
    assert said in mistake(capsys, store, *given)


def test_memory_that_nobody_measured_is_asked_for(
    store: Path, tmp_path: Path, rendered: Callable[[Path], Objects], capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "small.build.json").unlink()
    said = mistake(capsys, store, "--kubernetes", tmp_path / "out")
    assert "no build report says how much memory small.mar takes" in said
    configure(store, "--kubernetes", tmp_path / "out", "--memory-mb", 4096)
    assert container_of(rendered(tmp_path / "out"))["resources"]["limits"]["memory"] == "4096Mi"
    assert "4096 MiB as given" in (tmp_path / "out" / "deployment.yaml").read_text()


def test_a_folder_of_another_name_is_not_for_kserve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "store")
    assert "is not called model-store" in mistake(capsys, tmp_path / "store", "--kserve")


@pytest.mark.parametrize(
    "option", [("--namespace", "Upper"), ("--image", "no spaces here"), ("--image", ":1"), ("--gpu-resource", "gpu")]
)
def test_a_name_kubernetes_refuses_is_refused_here(option: tuple[str, str], store: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["configure", str(store), "--kubernetes", str(tmp_path / "out"), *option])
    assert caught.value.code == 2


def test_manifests_that_are_not_installed_are_missed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "MANIFESTS", tmp_path / "nowhere")
    assert "the manifests are not installed here" in mistake(capsys, store, "--kubernetes", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_wheel_brings_every_manifest_and_template_along() -> None:
    root = MANIFESTS.parents[1]
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    patterns = setup["options.package_data"]["ts_handlers"].split(",")
    packed = {found for pattern in patterns for found in (root / "ts_handlers").glob(pattern.strip())}
    found = [file for file in source.MANIFESTS.glob("*/**/*") if file.is_file()]
    assert source.MANIFESTS / "base" / "deployment.yaml" in found
    configure_folder = root / "ts_handlers" / "operate" / "configure"
    found += [*configure_folder.glob("*.template"), *configure_folder.glob("kubernetes/templates/*")]
    assert [file for file in found if file not in packed] == []
