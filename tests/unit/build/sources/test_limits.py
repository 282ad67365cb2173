"""How long a text may be, and what it may share a call with, is asked of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.text_models import SMALL, TEXTS, labels, write_bert, write_byte_pairs, write_model, write_wordpiece
from ts_handlers.build.sources.texts import load_source
from ts_handlers.cli import main
from ts_handlers.errors import OperatorError
from ts_handlers.testing import load_archive, predict

NAMES = labels("no", "maybe", "yes")


def build(folder: Path, store: Path, *options: str, task: str = "text-classification") -> int:
    return main(["build", str(folder), "--task", task, "--name", "m", "--output", str(store), "--force", *options])


def of_roberta_s_kind(kind: str, folder: Path) -> None:
    size = write_byte_pairs(folder, max_length=10**30)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    write_model(
        folder,
        f"{kind}Config",
        f"{kind}ForSequenceClassification",
        vocab_size=size,
        max_position_embeddings=34,
        type_vocab_size=1,
        **ids,
        **SMALL,
        **NAMES,
    )


@pytest.mark.parametrize("kind", ["Roberta", "Data2VecText", "RobertaPreLayerNorm", "IBert"])
def test_positions_that_begin_past_the_padding_are_found_by_the_model(kind: str, tmp_path: Path) -> None:
    of_roberta_s_kind(kind, tmp_path)
    assert load_source(str(tmp_path), "text-classification").max_length == 32


def test_a_text_past_the_limit_is_413_and_one_at_it_is_answered(tmp_path: Path) -> None:
    of_roberta_s_kind("Data2VecText", tmp_path / "model")
    assert build(tmp_path / "model", tmp_path) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    words = {len(tokenizer("a" + " a" * count)["input_ids"]): "a" + " a" * count for count in range(40)}
    statuses = [
        answer.status for answer in predict(load_archive(tmp_path / "m.mar"), *(words[n] for n in (31, 32, 33)))
    ]
    assert statuses == [200, 200, 413]


def test_the_tokenizer_may_say_more_than_the_model_takes(tmp_path: Path) -> None:
    write_bert(tmp_path, max_length=64)
    assert load_source(str(tmp_path), "text-classification").max_length == 64
    size = write_wordpiece(tmp_path, max_length=512)
    write_model(
        tmp_path,
        "BertConfig",
        "BertForSequenceClassification",
        vocab_size=size,
        max_position_embeddings=48,
        pad_token_id=0,
        **SMALL,
        **NAMES,
    )
    assert load_source(str(tmp_path), "text-classification").max_length == 48


def test_a_model_for_very_short_texts_is_built(tmp_path: Path) -> None:
    write_bert(tmp_path / "model", max_length=16)
    assert build(tmp_path / "model", tmp_path) == 0


def bart(folder: Path) -> None:
    size = write_byte_pairs(folder, tokenizer_class="BartTokenizer")
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    write_model(
        folder, "BartConfig", "BartForSequenceClassification", vocab_size=size, **small, **heads, **ids, **NAMES
    )


def convbert(folder: Path) -> None:
    size = write_wordpiece(folder)
    settings = {"embedding_size": 32, "max_position_embeddings": 64, "pad_token_id": 0, **SMALL, **NAMES}
    write_model(folder, "ConvBertConfig", "ConvBertForSequenceClassification", vocab_size=size, **settings)


def pad_less_gpt2(folder: Path) -> None:
    size = write_byte_pairs(folder, tokenizer_class="GPT2Tokenizer", pad_token=None)
    settings = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 2}
    write_model(folder, "GPT2Config", "GPT2ForSequenceClassification", vocab_size=size, **settings, **NAMES)


@pytest.mark.parametrize("make", [bart, convbert, pad_less_gpt2])
def test_texts_that_must_not_share_a_call_do_not(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "model")
    assert build(tmp_path / "model", tmp_path) == 0
    rows = [*TEXTS, {"text": TEXTS[0], "text_pair": TEXTS[1]}]
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "model"))
    for asked, answer in zip(rows, predict(load_archive(tmp_path / "m.mar"), *rows), strict=True):
        want = {item["label"]: item["score"] for item in pipe(asked, top_k=None)}
        assert answer.json() == pytest.approx(want, abs=1e-4)


def test_a_wide_tolerance_does_not_bring_padding_back(tmp_path: Path) -> None:
    convbert(tmp_path / "model")
    assert build(tmp_path / "model", tmp_path, "--tolerance", "10", "--set", "bucketing.call_overhead_tokens=30") == 2


def test_a_branch_by_length_that_tracing_froze_is_refused_with_the_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = write_wordpiece(tmp_path / "model", max_length=256, tokenizer_class="PreTrainedTokenizerFast")
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "max_position_embeddings": 256}
    settings = {"attention_type": "block_sparse", "block_size": 8, "num_random_blocks": 2, **ids, **SMALL, **NAMES}
    write_model(tmp_path / "model", "BigBirdConfig", "BigBirdForSequenceClassification", vocab_size=size, **settings)
    for backend in ("onnx", "torch"):
        assert build(tmp_path / "model", tmp_path, "--backend", backend) == 2
        error = capsys.readouterr().err
        assert "since the model takes another path for" in error
        assert "--set tokenizer.max_length=" in error
    assert build(tmp_path / "model", tmp_path, "--set", "tokenizer.max_length=64") == 0
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("positions", "claimed", "found"), [(1500, 2000, 1500), (1500, 1200, 1200), (1500, 10**30, 1500)]
)
def test_of_long_texts_what_is_before_the_layers_is_asked(
    positions: int, claimed: int, found: int, tmp_path: Path
) -> None:
    size = write_wordpiece(tmp_path, max_length=claimed)
    settings = {"max_position_embeddings": positions, "pad_token_id": 0, **SMALL, **NAMES}
    write_model(tmp_path, "BertConfig", "BertForSequenceClassification", vocab_size=size, **settings)
    assert load_source(str(tmp_path), "text-classification").max_length == found


def test_a_limit_within_the_layers_is_found_too(tmp_path: Path) -> None:
    size = write_byte_pairs(tmp_path, max_length=10**30, tokenizer_class="PreTrainedTokenizerFast")
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    small = {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 100, "expansion_ratio": 2}
    write_model(tmp_path, "MptConfig", "MptForSequenceClassification", vocab_size=size, **small, **ids, **NAMES)
    assert load_source(str(tmp_path), "text-classification").max_length == 100


def test_a_model_without_positions_takes_what_a_request_may_have(tmp_path: Path) -> None:
    size = write_wordpiece(tmp_path, max_length=10**30)
    small = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}
    ids = {"pad_token_id": 0, "eos_token_id": 3}
    write_model(tmp_path, "T5Config", "T5ForSequenceClassification", vocab_size=size, **small, **ids, **NAMES)
    assert load_source(str(tmp_path), "text-classification").max_length == 16_384


def test_a_length_of_the_command_line_that_the_model_does_not_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bert(tmp_path / "model", max_length=32)
    assert build(tmp_path / "model", tmp_path, "--set", "tokenizer.max_length=64") == 2
    assert "fails on a " in capsys.readouterr().err


def test_a_model_that_fails_is_quoted_to_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, **_: Any) -> None:
        raise ValueError(f"{type(self).__name__} cannot be run\n{input_ids.shape[1]} are invalid dimensions")

    write_bert(tmp_path)
    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", forward)
    with pytest.raises(OperatorError, match="cannot be run 3 are invalid dimensions; correct the checkpoint"):
        load_source(str(tmp_path), "text-classification")
