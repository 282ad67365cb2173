"""The source's tokenizer, and which of its arrays the model was trained with."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from ts_handlers.build.sources.checkpoint import cannot_load, refuse_own_code
from ts_handlers.build.sources.model import copy_of, read_json
from ts_handlers.config.sections import TokenizerConfig
from ts_handlers.errors import OperatorError
from ts_handlers.nlp.tokenization import NO_MAX_LENGTH, TextTokenizer

_FILES = frozenset({"tokenizer.json", "vocab.txt", "vocab.json"})
"""Without one of them (or a sentencepiece .model) transformers makes up an empty tokenizer."""

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
"""Arrays that a worker's tokenizer makes."""

_TYPED_BEFORE_5 = frozenset(
    {
        *("AlbertTokenizer", "BertJapaneseTokenizer", "BertweetTokenizer", "CpmTokenizer", "CTRLTokenizer"),
        *("FlaubertTokenizer", "FunnelTokenizer", "HerbertTokenizer", "PhobertTokenizer", "PreTrainedTokenizer"),
        *("RemBertTokenizer", "RoCBertTokenizer", "RoFormerTokenizer", "SplinterTokenizer", "XLMTokenizer"),
        "XLNetTokenizer",
    }
)
"""Classes that make token_type_ids in transformers 4.57 and not in 5 (names without Fast): checkpoints were trained so."""

_FILL = (*"abcdefghijklmnopqrstuvwxyz", *"0123456789")
"""Words of texts of no meaning: different ones, since models can treat many equal tokens alike."""

ODD_TEXTS = (
    "naïve café, Straße über señor",
    "NAÏVE CAFÉ, STRASSE ẞ İstanbul \u0131i",
    "  two  spaces, \ttabs\nand lines\r\n ",
    "e\u0301 combined, é composed, ﬁ ligature, ½ ™",
    "zero\u200bwidth, no\u00a0break, soft\u00adhyphen, \ufeffmark",
    "😀👩‍👩‍👧‍👦🎉 emoji 🇩🇪",
    "東京は今日とても暑いです。今天北京大学天气",
    "مرحبا بالعالم 123 שלום עולם",
    "नमस्ते दुनिया 한국어 สวัสดีชาวโลก Ελλάδα Москва",
    "1,234.56 € - 50% @home #tag https://example.org/a?b=c",
    "don't, it's, we'll: 'quoted' \"twice\" (in) [brackets]",
    "supercalifragilisticexpialidocious" * 3,
    "!!!???...---",
    "[CLS] and [SEP] and [MASK] and [PAD] and [UNK] inside",
    "<s> and </s> and <pad> and <mask> and <unk> and <|endoftext|> inside",
    "a [SEP] b</s>c",
    "\ud7ff\ue000 private",
    "nul\x00 and bell\x07",
)
"""Texts in which tokenizers differ from one another."""


def load_tokenizer(source: str, folder: Path, task: str) -> Any:
    """Load the fast tokenizer of a folder.

    Raises:
        OperatorError: There is none, or it needs code of its own.
    """
    refuse_own_code(source, folder, "tokenizer_config.json", "tokenizer_class")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a tokenizer's files can be broken in many ways
        raise cannot_load(source, folder, task, error) from error
    if not any(file.name in _FILES or file.suffix == ".model" for file in folder.iterdir()):
        raise OperatorError(f"{source} has no tokenizer (tokenizer.json, vocab.txt ...); save it beside the model")
    if not tokenizer.is_fast:
        raise OperatorError(
            f"{source} has no fast tokenizer ({type(tokenizer).__name__} is written in Python); a worker needs a "
            "tokenizer.json"
        )
    return tokenizer


def choose_inputs(tokenizer: Any, folder: Path, model: Any) -> tuple[str, ...]:
    """Return the arrays that the model is fed, and make the tokenizer return them.

    They are those that the folder's tokenizer_config.json names, else those of the tokenizer's class. Which these are must
    not depend on the transformers that is installed: 5 dropped the token_type_ids of many.
    """
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    names = list(settings.get("model_input_names") or tokenizer.model_input_names)
    kind = str(settings.get("tokenizer_class") or type(tokenizer).__name__).removesuffix("Fast")
    taken = inspect.signature(model.forward).parameters
    tokenizer.model_input_names = [name for name in names if name in _INPUTS and name in taken]
    is_lost = kind in _TYPED_BEFORE_5 and "token_type_ids" in taken and not settings.get("model_input_names")
    if is_lost and "token_type_ids" not in tokenizer.model_input_names and _types_tell_pairs(tokenizer, model):
        tokenizer.model_input_names.append("token_type_ids")
    return tuple(tokenizer.model_input_names)


def _types_tell_pairs(tokenizer: Any, model: Any) -> bool:
    """Say whether token_type_ids mark the second text of a pair, and change nothing for a single text.

    Where they do (XLNet gives its last token a 2), or where a model adds a word's vector for each (GPT-2), the two
    releases of transformers disagree on every text, and the installed one is followed.
    """
    single = filler(tokenizer, 8)
    types = {is_pair: _types(tokenizer, is_pair=is_pair) for is_pair in (False, True)}
    if any(types[False]) or not any(types[True]):
        return False
    arrays = {name: torch.tensor([values]) for name, values in single.items()}
    with torch.inference_mode():
        without = copy_of(model)(**arrays, return_dict=True)
        with_types = copy_of(model)(**arrays, token_type_ids=torch.zeros_like(arrays["input_ids"]), return_dict=True)
    return all(
        torch.equal(without[name], with_types[name]) for name in without if isinstance(without[name], torch.Tensor)
    )


def _types(tokenizer: Any, *, is_pair: bool) -> list[int]:
    encoded = tokenizer("a", "b" if is_pair else None, return_token_type_ids=True)
    return list(encoded["token_type_ids"])


def filler(tokenizer: Any, length: int, *, is_pair: bool = False) -> dict[str, Any]:
    """Return the encoding of a text of no meaning, `length` tokens long or the fewest that are possible, as lists."""
    shortest = tokenizer.num_special_tokens_to_add(pair=is_pair) + (2 if is_pair else 1)
    text = " ".join(islice(cycle(_FILL), max(length, shortest)))
    texts = ("a", text) if is_pair else (text, None)
    return dict(tokenizer(*texts, truncation=True, max_length=max(length, shortest)))


def compare_tokenizers(source: Any, model_dir: Path, config: TokenizerConfig, *, pairs: bool) -> None:
    """Compare an archive's tokenizer with the source's, on texts in which tokenizers differ.

    Args:
        source: The source's tokenizer.
        model_dir: The archive's files.
        config: `handler.tokenizer` of the archive.
        pairs: Whether texts come in pairs, too.

    Raises:
        OperatorError: They make other ids, of a text or of a pair.
    """
    archive = TextTokenizer(model_dir, dataclasses.replace(config, max_length=NO_MAX_LENGTH, truncation=False))
    singles: list[tuple[str, str | None]] = [(text, None) for text in ODD_TEXTS]
    for text, pair in [*singles, *(pairwise(ODD_TEXTS) if pairs else ())]:
        theirs = dict(source(text, pair))
        ours = archive.to_model_input(archive.encode(text, pair)).arrays
        for name in source.model_input_names:
            if ours[name].tolist() != list(theirs[name]):
                raise OperatorError(
                    f"the archive's tokenizer is not the source's ({type(source).__name__}): of {text!r} it makes the "
                    f"{name} {_shown(ours[name].tolist())}, and the source {_shown(theirs[name])}; save the source with a "
                    "tokenizer.json that does all that its tokenizer does"
                )


def other_file_notes(source: Any, folder: Path) -> tuple[str, ...]:
    """Say where the folder's tokenizer.json and the class that transformers makes of it differ; the class is followed."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ()
    plain = Tokenizer.from_file(str(file))
    plain.no_padding()
    plain.no_truncation()
    differing = [text for text in ODD_TEXTS if plain.encode(text).ids != source(text)["input_ids"]]
    if not differing:
        return ()
    return (
        f"note: transformers {transformers.__version__} ({type(source).__name__}) makes other ids than the folder's "
        f"tokenizer.json of {len(differing)} of {len(ODD_TEXTS)} odd texts ({differing[0]!r}); the archive follows it",
    )


def _shown(ids: Iterable[int]) -> str:
    found = list(ids)
    return f"{found[:12]} ..." if len(found) > 12 else str(found)
