"""The end-to-end comparison sees each part of an archive that is not the source's."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from tests.text_models import change_json, write_bert, write_sentence_files
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.verify.compare import APART, distance
from ts_handlers.build.verify.run import verify
from ts_handlers.cli import main
from ts_handlers.config.sections import load_config
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

Archive = tuple[Path, str, Path]
"""Source folder, task, unpacked archive."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Archive]:
    """A classifier, an embedding, entities and answers, each built and unpacked."""
    root = tmp_path_factory.mktemp("archives")
    made = {}
    for task, head in (
        ("text-classification", "SequenceClassification"),
        ("token-classification", "TokenClassification"),
        ("feature-extraction", "Model"),
        ("question-answering", "QuestionAnswering"),
    ):
        folder = write_bert(root / task / "model", head)
        if head == "Model":
            write_sentence_files(folder)
        assert main(["build", str(folder), "--task", task, "--name", "m", "--output", str(root / task)]) == 0
        with zipfile.ZipFile(root / task / "m.mar") as mar:
            mar.extractall(root / task / "unpacked")
        made[task] = (folder, task, root / task / "unpacked")
    return made


def _lower_case(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _one_weight(folder: Path) -> None:
    model = onnx.load(str(folder / "model.onnx"))
    [weight] = [item for item in model.graph.initializer if item.name.endswith("classifier.bias")]
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) + np.array([0.1, 0, 0], dtype=np.float32), weight.name)
    )
    onnx.save(model, str(folder / "model.onnx"))


def _labels(folder: Path) -> None:
    change_json(folder / "index_to_name.json", **{"0": "yes", "2": "no"})


def _setting(section: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / "model-config.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        config["handler"][section] |= values
        file.write_text(yaml.safe_dump(config), encoding="utf-8")

    return change


BROKEN: list[tuple[str, str, Any]] = [
    ("tokenizer", "text-classification", _lower_case),
    ("weight", "text-classification", _one_weight),
    ("labels", "text-classification", _labels),
    ("labels", "token-classification", _labels),
    ("types", "text-classification", _setting("tokenizer", input_names=["input_ids", "attention_mask"])),
    ("function", "text-classification", _setting("output", problem_type="multi_label_classification")),
    ("pooling", "feature-extraction", _setting("output", pooling="cls")),
    ("normalization", "feature-extraction", _setting("output", normalize=False)),
    ("dimensions", "feature-extraction", _setting("output", truncate_dim=16)),
    ("tokenizer", "feature-extraction", _lower_case),
    ("tokenizer", "question-answering", _lower_case),
    ("limit", "text-classification", _setting("tokenizer", max_length=16)),
]


@pytest.mark.parametrize(("what", "task", "change"), BROKEN, ids=[f"{what}-{task}" for what, task, _ in BROKEN])
def test_each_part_that_is_not_the_source_s_is_seen(
    what: str, task: str, change: Any, archives: dict[str, Archive], tmp_path: Path
) -> None:
    del what
    folder, _, unpacked = archives[task]
    broken = tmp_path / "broken"
    shutil.copytree(unpacked, broken)
    source = load_source(str(folder), task)
    compare(source, unpacked, unpacked)
    change(broken)
    with pytest.raises(OperatorError, match=r"answers otherwise than its source|answers .* with 413|does not make"):
        compare(source, unpacked, broken)


def compare(source: ModelSource, right: Path, archive: Path) -> None:
    """Compare an unpacked archive, by the settings of the right one."""
    section = yaml.safe_load((right / "model-config.yaml").read_text(encoding="utf-8"))
    config = load_config(section, TASKS[source.task].output_config)
    request: Any = {"question": "who?", "context": "a boat"} if source.task == "question-answering" else "a boat"
    found = verify(archive, source, config, "fp32", request, progress=lambda _: None)
    assert found.num_requests > 20
    assert found.largest_distance < 1e-4


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("tiny-resnet", "image-classification"),
        ("tiny-detr", "object-detection"),
        ("tiny-segformer", "image-segmentation"),
    ],
)
def test_pictures_are_compared_with_transformers_own_answers(
    kind: str, task: str, model_dirs: ModelDirs, tmp_path: Path
) -> None:
    checkpoint = model_dirs.checkpoint(kind)
    assert main(["build", str(checkpoint), "--task", task, "--name", "m", "--output", str(tmp_path)]) == 0
    verified = json.loads((tmp_path / "m.build.json").read_text(encoding="utf-8"))["verified"]
    assert verified["requests"] == 7
    assert verified["longest"] == 700 * 520
    assert verified["largest_distance"] < 1e-3


@pytest.mark.parametrize(
    ("task", "got", "want", "expected"),
    [
        ("text-classification", {"a": 0.5}, {"a": 0.5, "b": 0.5}, 0.0),
        ("text-classification", {"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}, 0.25),
        ("text-classification", {"c": 0.5}, {"a": 0.5}, APART),
        ("text-classification", {"a": 102.0}, {"a": 100.0}, 0.02),
        ("feature-extraction", [3.0, 4.0], [3.0, 4.0], 0.0),
        ("feature-extraction", [3.0, 0.0], [3.0, 4.0], 0.8),
        ("feature-extraction", [3.0], [3.0, 4.0], APART),
        ("token-classification", [{"start": 1, "score": 0.5}], [{"start": 1, "score": 0.5}], 0.0),
        ("token-classification", [{"start": 2, "score": 0.5}], [{"start": 1, "score": 0.5}], APART),
        ("token-classification", [], [{"start": 1, "score": 0.5}], APART),
        ("question-answering", {"answer": "a", "score": 0.5}, {"answer": "b", "score": 0.5}, 0.0),
        ("question-answering", {"answer": "a", "score": 0.5}, {"answer": "b", "score": 0.25}, 0.25),
        ("question-answering", [], {"answer": "b", "score": 0.25}, APART),
    ],
)
def test_distances(task: str, got: Any, want: Any, expected: float) -> None:
    assert distance(task, got, want) == pytest.approx(expected)
