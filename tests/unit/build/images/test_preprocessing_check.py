"""A build compares its preprocessing with transformers' own, of whatever source the settings are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.model_dirs import ModelDirs
from tests.pictures import scene
from tests.unit.build.image_forms import PREPROCESSOR, make_state_dict, request_for
from ts_handlers.build import inputs
from ts_handlers.build.sources import processor
from ts_handlers.build.sources.preprocessing_check import compare, pixel_values
from ts_handlers.build.sources.processor import Preparation, read_preprocessor
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.preprocessing import Resize
from ts_handlers.imaging.processors.classes import heeded_settings


def prepared_by(values: dict[str, Any], folder: Path) -> Preparation:
    """Return what is made of a file."""
    (folder / "own.json").write_text(json.dumps(values), encoding="utf-8")
    return read_preprocessor(folder, folder / "own.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"resample": 0},
        {"resize": Resize("shortest_edge", 112)},
        {"crop": (96, 97)},
        {"is_bgr": True},
        {"shift": (0.0, 0.1, 0.0)},
        {"middle": (0.9, 0.9)},
        {"pad_multiple": 64},
    ],
)
def test_whatever_is_done_otherwise_is_found(wrong: dict[str, Any], tmp_path: Path) -> None:
    levit = prepared_by({"image_processor_type": "LevitImageProcessor", "size": 96, "crop_size": 96}, tmp_path)
    assert levit.notes == ()
    other = dataclasses.replace(levit.preprocessing, **wrong)
    with pytest.raises(OperatorError, match=r"Levit makes .*describe what it does in a file"):
        compare(other, lambda pixels: pixel_values(levit.processor, pixels), "Levit")


def test_pictures_of_which_nothing_is_left_are_not_compared(tmp_path: Path) -> None:
    assert prepared_by({"image_processor_type": "GLPNImageProcessor"}, tmp_path).notes == ()


def test_a_processor_that_makes_no_pixels_is_refused() -> None:
    class Clusters:
        def __call__(self, **_: Any) -> dict[str, Any]:
            return {"input_ids": [[0]]}

    with pytest.raises(OperatorError, match="Clusters makes input_ids and no pixel_values; describe"):
        pixel_values(Clusters(), scene(5, 9))


def test_a_class_that_cannot_be_loaded_is_prepared_by_the_table(tmp_path: Path) -> None:
    detr = prepared_by({"image_processor_type": "RfDetrImageProcessor", "size": [96, 64]}, tmp_path)
    [note] = detr.notes
    assert "RfDetrImageProcessor cannot be loaded here, so that preprocessing was not compared with it" in note
    assert (detr.preprocessing.fixed_size, detr.preprocessing.antialias) == ((96, 64), False)


def test_a_folder_that_names_no_class_says_that_nothing_was_compared(
    model_dirs: ModelDirs, given: Path, tmp_path: Path
) -> None:
    plain = {"size": 32, "do_normalize": False}
    (given / "preprocessor_config.json").write_text(json.dumps(plain), encoding="utf-8")
    request = request_for(
        model_dirs.checkpoint("tiny-resnet"), given, labels=None, preprocessor=given / "preprocessor_config.json"
    )
    note = "note: preprocessing was not compared: its settings name no class of transformers"
    assert inputs.load(request, tmp_path).notes == (note,)
    (given / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")
    assert inputs.load(request_for(make_state_dict(given), given), tmp_path).notes == ()


def test_settings_in_a_timm_configuration(tmp_path: Path) -> None:
    settings = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "x", "pretrained_cfg": settings}), encoding="utf-8"
    )
    explicit, found, *_ = read_preprocessor(tmp_path, None)
    assert explicit == settings
    assert found.fixed_size == (32, 32)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OperatorError, match=r"there is no .*preprocessor_config.json; .* give one with --preprocessor"):
        read_preprocessor(tmp_path, None)


def test_a_processor_of_the_folders_own_code_is_refused(tmp_path: Path) -> None:
    own = {"image_processor_type": "OwnProcessor", "auto_map": {"AutoImageProcessor": "own.OwnProcessor"}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own), encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    for given in (None, tmp_path / "preprocessor_config.json"):
        with pytest.raises(OperatorError, match="needs code of its own"):
            read_preprocessor(tmp_path, given)


def test_a_setting_of_the_file_that_an_archive_would_lose_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 0}))
    assert read_preprocessor(tmp_path, file).preprocessing.resample == 0
    monkeypatch.setattr(processor, "heeded_settings", lambda values: set(heeded_settings(values)) - {"resample"})
    with pytest.raises(OperatorError, match="ViTImageProcessorPil makes other values, by up to .*--preprocessor"):
        read_preprocessor(tmp_path, file)


def test_what_transformers_says_of_settings_that_it_cannot_use() -> None:
    def broken(**inputs: Any) -> Any:
        raise ValueError(f"no {sorted(inputs)}")

    with pytest.raises(OperatorError, match=r"function of transformers fails .* 9 x 5 \(no \['images'.*; correct them"):
        pixel_values(broken, scene(5, 9))


def test_a_class_that_transformers_has_no_more(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"feature_extractor_type": "VanFeatureExtractor"}))
    with pytest.raises(
        OperatorError, match=r"VanFeatureExtractor is not known .*\(transformers .* has none of that name\)"
    ):
        read_preprocessor(tmp_path, file)
