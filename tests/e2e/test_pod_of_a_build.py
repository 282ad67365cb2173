"""From a checkpoint to the manifests of a pod: what the build measured is what the pod asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from manifests.kubectl import find_kubectl, render_objects

from tests.e2e.conftest import run_cli
from ts_handlers.operate.memory import HEAD_ROOM, JVM_OVERHEAD_MB, RSS_MARGIN
from ts_handlers.operate.torchserve import properties

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs


@pytest.fixture(scope="module")
def laid_out(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `build --kserve` makes of a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("storage")
    checkpoint = model_dirs.checkpoint("tiny-distilbert")
    run_cli(
        *("build", checkpoint, "--task", "text-classification", "--name", "sentiment"), "--output", folder, "--kserve"
    )
    return folder


def memory_mb(resources: dict[str, Any]) -> int:
    assert resources["requests"] == resources["limits"]
    return int(resources["limits"]["memory"].removesuffix("Mi"))


def test_a_build_for_kserve_is_what_storage_uri_wants(laid_out: Path) -> None:
    assert sorted(path.relative_to(laid_out).as_posix() for path in laid_out.rglob("*") if path.is_file()) == [
        "config/config.properties",
        "config/metrics.yaml",
        "model-store/sentiment.build.json",
        "model-store/sentiment.mar",
    ]
    values = properties.parse((laid_out / "config" / "config.properties").read_text())
    assert values["model_store"] == "/mnt/models/model-store"
    assert values["inference_address"] == "http://0.0.0.0:8080"
    assert values["management_address"] == "http://127.0.0.1:8081"
    assert (values["metrics_mode"], values["disable_token_authorization"]) == ("prometheus", "true")


@pytest.mark.parametrize("form", ["deployment", "kserve"])
def test_a_pod_asks_for_what_the_build_measured(form: str, laid_out: Path, tmp_path: Path) -> None:
    if find_kubectl() is None:
        pytest.skip("kubectl is not installed; scripts/test brings it")
    options = ("--kserve",) if form == "kserve" else ()
    run_cli("configure", laid_out / "model-store", "--kubernetes", tmp_path, "--cpus", 3, *options)
    objects = render_objects(tmp_path)
    if form == "kserve":
        resources = objects["InferenceService", "torchserve"]["spec"]["predictor"]["model"]["resources"]
        config = laid_out / "config" / "config.properties"
    else:
        pod = objects["Deployment", "torchserve"]["spec"]["template"]["spec"]
        resources, config = pod["containers"][0]["resources"], tmp_path / "config.properties"
    values = properties.parse(config.read_text())
    heap_mb = int(values["vmargs"].partition("-Xmx")[2].partition("m")[0])
    report = json.loads((laid_out / "model-store" / "sentiment.build.json").read_text())
    assert json.loads(values["models"])["sentiment"]["1.0"]["minWorkers"] == int(resources["limits"]["cpu"]) == 3
    spare_mb = memory_mb(resources) * (1 - HEAD_ROOM) - heap_mb - JVM_OVERHEAD_MB - 3 * report["rss_mb"] * RSS_MARGIN
    assert 0 <= spare_mb < 64
