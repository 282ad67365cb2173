"""Every weight is accounted for, and a folder's own code is never run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.text_models import change_json, rename_weights, write_bert
from ts_handlers.build.sources.texts import load_source
from ts_handlers.cli import main
from ts_handlers.errors import OperatorError


def _without(start: str) -> Any:
    return lambda name: None if name.startswith(start) else name


@pytest.mark.parametrize(
    ("head", "task", "rename", "named"),
    [
        (
            "SequenceClassification",
            "text-classification",
            _without("classifier"),
            r"classifier\.bias, classifier\.weight",
        ),
        (
            "Model",
            "feature-extraction",
            _without("encoder.layer.1."),
            r"lacks weights of BertModel: encoder\.layer\.1\.",
        ),
        (
            "SequenceClassification",
            "text-classification",
            lambda name: f"module.{name}",
            r"has module\.bert\.embeddings",
        ),
        ("SequenceClassification", "text-classification", _without("bert.embeddings.LayerNorm"), "LayerNorm.weight"),
    ],
)
def test_weights_that_are_missing_end_the_build_with_their_names(
    head: str, task: str, rename: Any, named: str, tmp_path: Path
) -> None:
    rename_weights(write_bert(tmp_path, head), rename)
    with pytest.raises(OperatorError, match=named):
        load_source(str(tmp_path), task)


@pytest.mark.parametrize("head", ["Model", "SequenceClassification"])
def test_weights_of_a_layer_that_the_model_was_made_without(head: str, tmp_path: Path) -> None:
    write_bert(tmp_path, head)
    change_json(tmp_path / "config.json", num_hidden_layers=1)
    task = "feature-extraction" if head == "Model" else "text-classification"
    with pytest.raises(OperatorError, match=r"has no place for: (bert\.)?encoder\.layer\.1\."):
        load_source(str(tmp_path), task)


def test_weights_of_another_name_in_the_head(tmp_path: Path) -> None:
    write_bert(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "adapter.down.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    with pytest.raises(OperatorError, match=r"has no place for: adapter\.down\.weight"):
        load_source(str(tmp_path), "text-classification")


def test_a_pooler_that_no_answer_depends_on_may_be_missing(tmp_path: Path) -> None:
    rename_weights(write_bert(tmp_path, "Model"), _without("pooler"))
    assert load_source(str(tmp_path), "feature-extraction").labels == ()


def test_the_head_of_a_classifier_is_left_out_of_an_embedding(tmp_path: Path) -> None:
    assert load_source(str(write_bert(tmp_path)), "feature-extraction").architecture == "BertModel"


def test_an_adapter_beside_the_model_is_refused(tmp_path: Path) -> None:
    (write_bert(tmp_path) / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OperatorError, match="holds an adapter .*merge_and_unload"):
        load_source(str(tmp_path), "text-classification")


def test_a_config_without_architectures_is_no_fault(tmp_path: Path) -> None:
    change_json(write_bert(tmp_path) / "config.json", architectures=None)
    assert load_source(str(tmp_path), "text-classification").labels == ("no", "maybe", "yes")


def test_a_folder_within_the_folder_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "inner")
    with pytest.raises(OperatorError, match=r"has no config\.json; there is one in inner: give .*inner"):
        load_source(str(tmp_path), "text-classification")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folder_s_own_code_is_never_run_whatever_is_typed(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    write_bert(folder)
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    if file == "config.json":
        names = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
        change_json(folder / file, auto_map=names, model_type="own")
    else:
        change_json(folder / file, auto_map={"AutoTokenizer": ["own.Tokenizer", None]}, tokenizer_class="OwnTokenizer")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    arguments = [
        "build",
        str(folder),
        "--task",
        "text-classification",
        "--name",
        "m",
        "--output",
        str(tmp_path / "store"),
    ]
    assert main(arguments) == 2
    assert not ran.exists()
    assert "needs code of its own (own.py), and a build never runs a folder's code" in capsys.readouterr().err


def test_a_sentence_transformers_module_of_the_folder_s_own_is_never_run(tmp_path: Path) -> None:
    write_bert(tmp_path, "Model")
    (tmp_path / "own.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "own.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(OperatorError, match=r"needs code of its own \(own\.Transformer\)"):
        load_source(str(tmp_path), "feature-extraction")


def test_a_pickle_with_more_than_tensors_is_refused_without_torch_s_advice(tmp_path: Path) -> None:
    write_bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({**weights, "own": io.StringIO()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OperatorError, match="objects beside its weights that can run code") as caught:
        load_source(str(tmp_path), "text-classification")
    assert "weights_only" not in str(caught.value)
