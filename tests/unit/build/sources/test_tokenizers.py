"""The archive's tokenizer is the source's, and models are fed what they were trained with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.text_models import SMALL, TEXTS, labels, write_bert, write_byte_pairs, write_model, write_unigram
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.sources.tokenizer import compare_tokenizers
from ts_handlers.cli import main
from ts_handlers.config.sections import load_config
from ts_handlers.errors import OperatorError
from ts_handlers.testing import load_archive, predict

PAIR = {"text": TEXTS[0], "text_pair": TEXTS[1]}
SHORT_PAIR = {"text": "a quiet river", "text_pair": "an old boat"}


def build(folder: Path, store: Path, *options: str) -> int:
    task = ["--task", "text-classification", "--name", "m", "--output", str(store), "--force"]
    return main(["build", str(folder), *task, *options])


def pipeline(folder: Path, text: Any, **settings: Any) -> dict[str, float]:
    found = transformers.pipeline("text-classification", model=str(folder))(text, top_k=None, **settings)
    return {item["label"]: item["score"] for item in found}


def gpt2(folder: Path) -> None:
    size = write_byte_pairs(folder, tokenizer_class="GPT2Tokenizer", model_input_names=["input_ids", "attention_mask"])
    names = labels("no", "maybe", "yes")
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "pad_token_id": 1, "eos_token_id": 2}
    write_model(
        folder, "GPT2Config", "GPT2ForSequenceClassification", vocab_size=size, bos_token_id=0, **settings, **names
    )


def bert_without_types(folder: Path) -> None:
    write_bert(folder, model_input_names=["input_ids", "attention_mask"])


@pytest.mark.parametrize("make", [gpt2, bert_without_types, write_bert])
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_models_are_fed_what_their_tokenizer_makes(make: Any, backend: str, tmp_path: Path) -> None:
    make(tmp_path / "model")
    assert build(tmp_path / "model", tmp_path, "--backend", backend) == 0
    answers = predict(load_archive(tmp_path / "m.mar"), PAIR, TEXTS[2])
    for answer, asked in zip(answers, (PAIR, TEXTS[2]), strict=True):
        assert answer.json() == pytest.approx(pipeline(tmp_path / "model", asked), abs=1e-4)


REFERENCE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import transformers
pipe = transformers.pipeline("text-classification", model=sys.argv[1])
print(json.dumps([{i["label"]: i["score"] for i in pipe(x, top_k=None)} for x in json.loads(sys.argv[2])]))
"""


@pytest.mark.parametrize("kind", ["AlbertTokenizer", "PreTrainedTokenizerFast"])
def test_pairs_keep_the_types_that_transformers_4_made(kind: str, tmp_path: Path) -> None:
    """transformers 5 makes none for ALBERT; 4.57, with which its checkpoints were trained, does."""
    folder = tmp_path / "model"
    size = write_unigram(folder, tokenizer_class=kind)
    settings = {"embedding_size": 16, "max_position_embeddings": 64, "pad_token_id": 0, **SMALL, **labels("no", "yes")}
    write_model(folder, "AlbertConfig", "AlbertForSequenceClassification", vocab_size=size, **settings)
    run = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(folder), json.dumps([SHORT_PAIR])],
        env={"PYTHONPATH": str(Path(sys.prefix) / "transformers4"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    [want] = json.loads(run.stdout.strip().splitlines()[-1])
    for backend in ("onnx", "torch"):
        assert build(folder, tmp_path, "--backend", backend) == 0
        assert predict(load_archive(tmp_path / "m.mar"), SHORT_PAIR)[0].json() == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"truncation_side": "left"}, " ".join(TEXTS)),
        ({"truncation_side": "right"}, " ".join(TEXTS)),
        ({"split_special_tokens": True}, "a [SEP] river [MASK] boat"),
    ],
)
def test_what_tokenizer_config_says_is_done(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    write_bert(tmp_path / "model", **settings)
    assert build(tmp_path / "model", tmp_path, "--set", "tokenizer.truncation=true") == 0
    got = predict(load_archive(tmp_path / "m.mar"), text)[0].json()
    assert got == pytest.approx(pipeline(tmp_path / "model", text, truncation=True), abs=1e-5)


def test_a_tokenizer_of_another_kind_is_refused_with_the_text(tmp_path: Path) -> None:
    write_bert(tmp_path / "model")
    source = load_source(str(tmp_path / "model"), "text-classification")
    files = tmp_path / "files"
    files.mkdir()
    source.write_files(files)
    config = load_config({"handler": {"tokenizer": source.section()["tokenizer"]}}).tokenizer
    compare_tokenizers(source.tokenizer, files, config, pairs=True)
    changed = json.loads((files / "tokenizer.json").read_text(encoding="utf-8"))
    changed["normalizer"]["lowercase"] = False
    (files / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(OperatorError, match="tokenizer is not the source's .*Straße.* it makes the input_ids"):
        compare_tokenizers(source.tokenizer, files, config, pairs=True)
