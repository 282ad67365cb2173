"""Small random models of texts with a tokenizer of their family: what each architecture asks of a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = (
    "a quiet river ran past the old boat in the yellow garden",
    "Anna bought green paper and never opened the window of the train",
    "often the market under the bridge was empty because of the rain",
    "naïve café owners in Lisbon carried a table over the street, twice!",
    "who found seven strange letters before the long winter of 2024?",
)
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def labels(*names: str) -> dict[str, Any]:
    """Return the settings of a model with these labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def write_wordpiece(folder: Path, *, max_length: int = 64, lowercase: bool = True, **settings: Any) -> int:
    """Write BERT's kind of tokenizer; return its size."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(BERT_TOKENS), show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT_TOKENS, strict=True)
    defaults = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}
    return _save(tokenizer, folder, {**defaults, **dict(names), "model_max_length": max_length, **settings})


def write_byte_pairs(folder: Path, *, max_length: int = 64, **settings: Any) -> int:
    """Write RoBERTa's kind of tokenizer; return its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(ROBERTA_TOKENS), initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    defaults = {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>"}
    more = {"sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return _save(tokenizer, folder, {**defaults, **more, "model_max_length": max_length, **settings})


def write_unigram(folder: Path, *, max_length: int = 64, **settings: Any) -> int:
    """Write ALBERT's kind of tokenizer; return its size."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False),  # noqa: S106
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)
    return _save(tokenizer, folder, {**dict(names), "model_max_length": max_length, **settings})


def write_model(folder: Path, config_class: str, model_class: str, **settings: Any) -> Any:
    """Write a model whose answers differ from text to text; return it."""
    torch.manual_seed(3)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
            elif "norm" not in name.lower():
                parameter.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()
    model.eval().save_pretrained(folder)
    return model


def write_bert(folder: Path, head: str = "SequenceClassification", **settings: Any) -> Path:
    """Write a BERT with three labels, or with none as `head="Model"`; settings are its tokenizer's."""
    size = write_wordpiece(folder, **settings)
    name = "BertModel" if head == "Model" else f"BertFor{head}"
    named = {} if head in ("Model", "QuestionAnswering") else labels("no", "maybe", "yes")
    positions = settings.get("max_length", 64)
    write_model(
        folder, "BertConfig", name, vocab_size=size, pad_token_id=0, max_position_embeddings=positions, **SMALL, **named
    )
    return folder


def change_json(file: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**found, **values}), encoding="utf-8")


def rename_weights(folder: Path, rename: Any) -> None:
    """Rewrite a folder's weights: `rename` returns each one's new name, or None to leave it out."""
    file = folder / "model.safetensors"
    kept = {new: tensor for name, tensor in load_file(file).items() if (new := rename(name)) is not None}
    save_file(kept, file, metadata={"format": "pt"})


def write_sentence_files(
    folder: Path, *, pooling: str = "mean_tokens", modules: tuple[str, ...] = ("Normalize",)
) -> None:
    """Write what sentence-transformers has around a model."""
    kinds = ("Transformer", "Pooling", *modules)
    paths = {"Transformer": ""}
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": paths.get(kind, f"{i}_{kind}"),
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    for module in listed[1:]:
        (folder / str(module["path"])).mkdir()
    config = {"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 32, "do_lower_case": false}', encoding="utf-8"
    )


def _save(tokenizer: Any, folder: Path, settings: dict[str, Any]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    return int(tokenizer.get_vocab_size())
