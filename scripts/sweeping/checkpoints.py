"""Writes a small random model of an architecture, with a tokenizer or an image processor of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from sweeping.architectures import IMAGES, VOCABULARY, Architecture, small_config
from tests.text_models import write_byte_pairs, write_unigram, write_wordpiece

LABELS = 3

_BYTE_PAIRS = frozenset(
    {
        *(
            "bart",
            "bigbird_pegasus",
            "biogpt",
            "bloom",
            "codegen",
            "data2vec-text",
            "deberta",
            "esm",
            "falcon",
            "gpt2",
            "gpt_neo",
        ),
        *(
            "gpt_neox",
            "gptj",
            "gpt_bigcode",
            "ibert",
            "layoutlmv3",
            "led",
            "lilt",
            "llama",
            "longformer",
            "luke",
            "markuplm",
        ),
        *(
            "modernbert",
            "mpnet",  # its model takes 1 for padding, whatever its configuration says
            "mpt",
            "mvp",
            "opt",
            "phi",
            "phi3",
            "plbart",
            "qwen2",
            "qwen3",
            "roberta",
            "roberta-prelayernorm",
        ),
        *("stablelm", "starcoder2", "xlm-roberta-xl", "nemotron", "persimmon", "olmo", "olmo2", "smollm3"),
    }
)
_UNIGRAM = frozenset(
    {
        *(
            "albert",
            "camembert",
            "deberta-v2",
            "fnet",
            "gemma",
            "gemma2",
            "mbart",
            "mt5",
            "nystromformer",
            "rembert",
            "t5",
        ),
        *("umt5", "xlm-roberta", "xlnet", "xmod", "yoso", "t5gemma", "big_bird", "reformer"),
    }
)
_CLASSES = {
    "albert": "AlbertTokenizer",
    "rembert": "RemBertTokenizer",
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
}
"""Classes of tokenizers that change what a model is fed; others are transformers' general one."""

_GENERAL = "PreTrainedTokenizerFast"


def write_checkpoint(architecture: Architecture, folder: Path) -> None:
    """Write a folder as save_pretrained does; whatever transformers raises comes through."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {} if architecture.task in IMAGES else _write_tokenizer(architecture.name, folder)
    config = small_config(architecture, LABELS, ids)
    torch.manual_seed(3)
    model = getattr(transformers, architecture.model_class)(config).eval()
    _spread(model)
    model.save_pretrained(folder)
    if architecture.task in IMAGES:
        _write_processor(architecture.name, config, folder)
    else:
        _run(model, folder)


def _run(model: Any, folder: Path) -> None:
    """Run the model once: a small one may be none that runs, which says nothing of the build."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer("a quiet river", "and a boat", return_tensors="pt")
    with torch.inference_mode():
        model(**{name: encoded[name] for name in ("input_ids", "attention_mask")})


def _write_tokenizer(name: str, folder: Path) -> dict[str, int]:
    kind = _CLASSES.get(name, _GENERAL)
    two: dict[str, Any] = {} if kind != _GENERAL else {"model_input_names": ["input_ids", "attention_mask"]}
    if name in _BYTE_PAIRS:
        size, ids = write_byte_pairs(folder, max_length=10**30, tokenizer_class=kind, **two), (1, 0, 2)
    elif name in _UNIGRAM:
        size, ids = write_unigram(folder, max_length=10**30, tokenizer_class=kind, **two), (0, 2, 3)
    else:
        size, ids = write_wordpiece(folder, max_length=10**30, tokenizer_class=kind, **two), (0, 2, 3)
    if size > VOCABULARY:
        raise ValueError(f"the tokenizer has {size} tokens; models have room for {VOCABULARY}")
    pad, begin, end = ids
    return {"pad_token_id": pad, "bos_token_id": begin, "eos_token_id": end, "sep_token_id": end}


def _write_processor(name: str, config: Any, folder: Path) -> None:
    """Write the architecture's image processor, at the size that the model takes."""
    processors = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES[name]
    names = processors.values() if isinstance(processors, dict) else processors
    classes = [found for each in names if each and (found := getattr(transformers, each, None)) is not None]
    for processor_class in classes:
        try:
            processor = processor_class()
        except ImportError:  # torchvision's
            continue
        size = getattr(config, "image_size", None)
        is_square = isinstance(getattr(processor, "size", None), dict | object) and "height" in dict(
            processor.size or {}
        )
        if isinstance(size, int) and is_square:
            processor.size = {"height": size, "width": size}
        processor.save_pretrained(folder)
        return
    raise ValueError(f"{name} has no image processor that runs without torchvision")


def _spread(model: Any) -> None:
    """Draw weights so that answers differ visibly from input to input."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, min(0.3, 2 / parameter.shape[-1] ** 0.5))
            elif parameter.ndim == 1 and "norm" not in key.lower() and key.endswith("bias"):
                parameter.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.get_buffer("running_mean"), 0, 0.1)
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
