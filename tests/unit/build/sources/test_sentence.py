"""sentence-transformers' folders: what they say is honoured, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.text_models import TEXTS, change_json, write_bert, write_sentence_files
from ts_handlers.build.sources.sentence import read_sentence_model
from ts_handlers.cli import main
from ts_handlers.errors import OperatorError
from ts_handlers.testing import load_archive, predict

UPPER = "Anna Bought GREEN Paper"


def _lower_case(folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)


def _truncated(folder: Path) -> None:
    change_json(folder / "config_sentence_transformers.json", truncate_dim=8, prompts={"query": ""})


def _other_name(folder: Path) -> None:
    (folder / "sentence_bert_config.json").rename(folder / "sentence_distilbert_config.json")


def _old_layout(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in [file for file in folder.iterdir() if file.is_file() and file.name != "modules.json"]:
        shutil.move(file, inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


@pytest.mark.parametrize("change", [_lower_case, _truncated, _other_name, _old_layout])
def test_archives_answer_as_sentence_transformers_does(change: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_bert(tmp_path / "model", "Model", lowercase=False)
    write_sentence_files(folder)
    change(folder)
    assert build(folder, tmp_path) == 0
    texts = [UPPER, *TEXTS]
    want = SentenceTransformer(str(folder), device="cpu").encode(texts)
    got = np.array([answer.json() for answer in predict(load_archive(tmp_path / "m.mar"), *texts)])
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize(
    "pooling", ["cls_token", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken", "max_tokens"]
)
def test_each_pooling_is_sentence_transformers_own(pooling: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model", "Model")
    write_sentence_files(folder, pooling=pooling, modules=())
    assert build(folder, tmp_path) == 0  # the build compares


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("Dense",), "modules Transformer, Pooling, Dense; Transformer, Pooling and, after them, Normalize are served"),
        (("Normalize", "Normalize"), "Pooling, Normalize, Normalize"),
    ],
)
def test_other_modules_are_refused_by_name(modules: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write_sentence_files(write_bert(tmp_path, "Model"), modules=modules)
    with pytest.raises(OperatorError, match=message):
        read_sentence_model(tmp_path)


def test_two_poolings_together_and_a_prompt_are_refused(tmp_path: Path) -> None:
    write_sentence_files(write_bert(tmp_path, "Model"))
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    change_json(tmp_path / "config_sentence_transformers.json", **prompts)
    with pytest.raises(OperatorError, match="puts the prompt 'query: ' before every text"):
        read_sentence_model(tmp_path)
    change_json(tmp_path / "1_Pooling" / "config.json", pooling_mode_cls_token=True)
    with pytest.raises(OperatorError, match="pools by cls and mean together"):
        read_sentence_model(tmp_path)


def test_a_folder_that_sentence_transformers_cannot_load_is_one_line(tmp_path: Path) -> None:
    write_sentence_files(write_bert(tmp_path, "Model"))
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(OperatorError, match="sentence-transformers cannot load"):
        read_sentence_model(tmp_path)
    (tmp_path / "modules.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(OperatorError, match="is no list of modules"):
        read_sentence_model(tmp_path)


def build(folder: Path, store: Path) -> int:
    return main(
        ["build", str(folder), "--task", "feature-extraction", "--name", "m", "--output", str(store), "--force"]
    )
