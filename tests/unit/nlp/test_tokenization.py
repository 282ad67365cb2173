from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ts_handlers.config.sections import TokenizerConfig
from ts_handlers.errors import ConfigError, PayloadTooLargeError
from ts_handlers.nlp.tokenization import TextTokenizer

SETTINGS = {"pad_token": "[PAD]", "unk_token": {"content": "[UNK]"}, "cls_token": "[CLS]", "model_max_length": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer of single words, with padding and truncation in its file as sentence-transformers leaves them."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return tmp_path


def test_what_the_archive_says_of_its_tokenizer(folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    assert tokenizer.max_length == 8
    assert (tokenizer.special.pad, tokenizer.special.unk, tokenizer.special.cls) == (0, 1, 2)
    assert tokenizer.pad_values["input_ids"] == 0
    assert not tokenizer.has_subword_prefix
    configured = TextTokenizer(folder, TokenizerConfig(max_length=5, pad_token_id=7, unk_token_id=9))
    assert (configured.max_length, configured.special.pad, configured.special.unk) == (5, 7, 9)


@pytest.mark.parametrize("max_length", [None, 10**30])
def test_a_tokenizer_without_a_maximum_has_none(folder: Path, max_length: int | None) -> None:
    settings = {**SETTINGS, "model_max_length": max_length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    assert tokenizer.max_length is None
    assert len(tokenizer.encode("a " * 500)) == 502


def test_padding_and_truncation_of_the_file_do_not_apply(folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    model_input = tokenizer.to_model_input(tokenizer.encode("a b c", "d"))
    assert {name: array.tolist() for name, array in model_input.arrays.items()} == {
        "input_ids": [2, 4, 5, 6, 3, 7, 3],
        "attention_mask": [1] * 7,
        "token_type_ids": [0, 0, 0, 0, 0, 1, 1],
    }
    assert model_input.length == 7


def test_too_long_is_413_or_cut(folder: Path) -> None:
    with pytest.raises(PayloadTooLargeError, match="has 9 tokens; this model takes 8: shorten it"):
        TextTokenizer(folder, TokenizerConfig()).encode("a b c d e f g")
    cutting = TextTokenizer(folder, TokenizerConfig(truncation=True))
    assert cutting.encode("a b c d e f g").ids == [2, 4, 5, 6, 7, 8, 9, 3]
    assert len(cutting.encode("a b")) == 4


@pytest.mark.parametrize("configured", [True, False])
def test_texts_are_cut_on_the_side_that_the_tokenizer_names(configured: bool, folder: Path) -> None:
    if not configured:
        (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, "truncation_side": "left"}))
    side = "left" if configured else None
    cutting = TextTokenizer(folder, TokenizerConfig(truncation=True, truncation_side=side))  # type: ignore[arg-type]
    assert cutting.encode("a b c d e f g h").ids == [2, 6, 7, 8, 9, 10, 11, 3]


def test_names_of_special_tokens_are_text_where_the_tokenizer_splits_them(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    kept, split = (TextTokenizer(folder, TokenizerConfig(split_special_tokens=value)) for value in (False, True))
    assert kept.encode("a [SEP] b").ids == [2, 4, 3, 5, 3]
    assert split.encode("a [SEP] b").ids == [2, 4, 1, 1, 1, 5, 3]


def test_arrays_are_those_that_the_model_was_trained_with(folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig(input_names=("input_ids", "attention_mask")))
    assert set(tokenizer.to_model_input(tokenizer.encode("a", "b")).arrays) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(("length", "made"), [(8, 8), (5, 5), (1, 3)])
def test_a_filler_has_the_tokens_that_every_text_has(length: int, made: int, folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    ids = tokenizer.filler(length).ids
    assert (len(ids), ids[0], ids[-1]) == (made, 2, 3)
    assert tokenizer.filler(8, is_pair=True).type_ids == [0, 0, 0, 1, 1, 1, 1, 1]


def test_windows_overlap_and_begin_with_the_question(folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    windows = tokenizer.encode_windows("a b", "c d e f g h", window_length=8, stride=1)
    assert [window.tokens for window in windows] == [
        ["[CLS]", "a", "b", "[SEP]", "c", "d", "e", "[SEP]"],
        ["[CLS]", "a", "b", "[SEP]", "e", "f", "g", "[SEP]"],
        ["[CLS]", "a", "b", "[SEP]", "g", "h", "[SEP]"],
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("question", "context"), [("a b c d e f g h i j", None), ("a b", "c d e f g h i j"), ("a", "b")]
)
def test_windows_are_those_that_the_library_makes(question: str, context: str | None, side: str, folder: Path) -> None:
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    strategy = "longest_first" if context is None else "only_second"
    library.enable_truncation(8, stride=1, strategy=strategy, direction=side)
    first = library.encode(question, context)
    tokenizer = TextTokenizer(folder, TokenizerConfig(truncation_side=side))  # type: ignore[arg-type]
    found = tokenizer.encode_windows(question, context, window_length=8, stride=1)
    for ours, theirs in zip(found, [first, *first.overflowing], strict=True):
        assert (ours.tokens, ours.offsets) == (theirs.tokens, theirs.offsets)
        assert (ours.type_ids, ours.sequence_ids) == (theirs.type_ids, theirs.sequence_ids)


def test_threads_that_share_a_tokenizer_do_not_cut_each_other_s_texts(folder: Path) -> None:
    whole, cutting = "a b c d e f", "a b c d e f g h " * 50
    tokenizer = TextTokenizer(folder, TokenizerConfig(truncation=True))

    def encode(index: int) -> int:
        if index % 2:
            return len(tokenizer.encode_windows(cutting, None, window_length=5, stride=1)[0]) + 3
        return len(tokenizer.encode(whole))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(encode, range(2000))) == {8}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "pair",
    [("a b c d e f g", "h"), ("h", "a b c d e f g"), ("a b c d e f", "a b c d"), ("a b c", "a b c d e f"), ("a", None)],
)
def test_what_is_cut_is_what_the_library_cuts(pair: tuple[str, str | None], side: str, folder: Path) -> None:
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    for max_length in range(5, 13):
        config = TokenizerConfig(truncation=True, max_length=max_length, truncation_side=side)  # type: ignore[arg-type]
        library.enable_truncation(max_length, direction=side)
        found, wanted = TextTokenizer(folder, config).encode(*pair), library.encode(*pair)
        assert (found.tokens, found.type_ids, found.offsets) == (wanted.tokens, wanted.type_ids, wanted.offsets)


@pytest.mark.parametrize("question", ["a b c d", "a b c d e f g h i"])
def test_a_question_that_leaves_no_room_is_413(question: str, folder: Path) -> None:
    tokenizer = TextTokenizer(folder, TokenizerConfig())
    with pytest.raises(PayloadTooLargeError, match="the question leaves room for"):
        tokenizer.encode_windows(question, "c d e f g h", window_length=8, stride=2)


def test_tokens_are_joined_as_the_decoder_does(folder: Path) -> None:
    assert TextTokenizer(folder, TokenizerConfig()).tokens_to_string(["a", "b"]) == "a b"


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other.json is not in the archive"):
        TextTokenizer(tmp_path, TokenizerConfig(file="other.json"))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"no padding token; set handler\.tokenizer\.pad_token_id"):
        TextTokenizer(folder, TokenizerConfig())
    assert TextTokenizer(folder, TokenizerConfig(pad_token_id=0)).max_length is None
