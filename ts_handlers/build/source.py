"""A text model's Hugging Face folder (or hub id) and what the build needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ts_handlers.build.model_source import ModelSource, digest, find_folder, labels_of, load_checkpoint, read_json
from ts_handlers.errors import OperatorError, first_line

_TOKENIZER_FILES = frozenset({"tokenizer.json", "vocab.txt", "vocab.json"})
"""Without one of them (or a sentencepiece .model) transformers makes up an empty tokenizer."""


@dataclass(frozen=True, slots=True)
class Source(ModelSource):
    """A text checkpoint in memory, with eager attention (the form ONNX Runtime's optimizer fuses).

    Attributes:
        tokenizer: Its fast tokenizer; it makes the arrays of input_names.
        max_length: Most tokens of a sequence.
    """

    tokenizer: Any
    max_length: int

    @property
    def sequence_outputs(self) -> tuple[str, ...]:
        """Outputs with the sequence as their second axis."""
        return () if self.task == "text-classification" else self.output_names

    @property
    def pad_values(self) -> Mapping[str, int]:
        """The padding token's id for input_ids, 0 elsewhere."""
        return {"input_ids": self.tokenizer.pad_token_id or 0}

    def example(self) -> dict[str, torch.Tensor]:
        """Return two texts of one padded length."""
        texts = ["dynamic axes", "need two texts of one padded length"]
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        return {name: encoded[name] for name in self.input_names}

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return batch and length."""
        unpadded = set(self.output_names) - set(self.sequence_outputs)
        names = [*self.input_names, *self.output_names]
        return {name: {0: "batch"} if name in unpadded else {0: "batch", 1: "sequence"} for name in names}

    def write_files(self, folder: Path) -> list[Path]:
        """Write tokenizer.json and tokenizer_config.json."""
        self.tokenizer.save_pretrained(folder)
        return [folder / "tokenizer.json", folder / "tokenizer_config.json"]

    def section(self) -> dict[str, Any]:
        """Return the tokenizer's settings, and what the folder says of the output."""
        tokenizer: dict[str, Any] = {"max_length": self.max_length, "pad_token_id": self.tokenizer.pad_token_id}
        if self.tokenizer.unk_token_id is not None:
            tokenizer["unk_token_id"] = self.tokenizer.unk_token_id
        output: dict[str, Any] = {}
        if self.task == "text-classification" and self.model.config.problem_type:
            output["problem_type"] = self.model.config.problem_type
        if self.task == "feature-extraction":
            found = sentence_settings(self.folder)
            tokenizer["max_length"] = min(self.max_length, found.pop("max_length", self.max_length))
            output |= found
        return {"tokenizer": tokenizer, "output": output}


def load_source(source: str, task: str) -> Source:
    """Read a checkpoint.

    Args:
        source: Folder that `save_pretrained` wrote, or a hub id.
        task: A text task.

    Raises:
        OperatorError: It cannot be read, or does not serve the task.
    """
    folder = find_folder(source)
    model = load_checkpoint(source, folder, task)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # so can a tokenizer's files
        raise OperatorError(f"{source} cannot be loaded for {task}: {first_line(error)}") from error
    if not any(file.name in _TOKENIZER_FILES or file.suffix == ".model" for file in folder.iterdir()):
        raise OperatorError(f"{source} has no tokenizer (tokenizer.json, vocab.txt ...); save it beside the model")
    if not tokenizer.is_fast:
        raise OperatorError(f"{source} has no fast tokenizer; a worker needs a tokenizer.json")
    if task == "question-answering" and tokenizer.padding_side != "right":
        raise OperatorError(f"{source} pads on the left; question-answering needs padding on the right")
    return Source(
        folder=folder,
        task=task,
        model=model,
        labels=_labels(model.config, task),
        input_names=tuple(tokenizer.model_input_names),
        digest=digest(folder),
        tokenizer=tokenizer,
        max_length=_max_length(tokenizer, model.config),
    )


def sentence_settings(folder: Path) -> dict[str, Any]:
    """Read pooling, normalization and maximum length from sentence-transformers' files; {} where there are none.

    Raises:
        OperatorError: The folder has a step that the handler does not have, so that its vectors would be others.
    """
    if not (folder / "modules.json").is_file():
        return {}
    settings: dict[str, Any] = {}
    for module in read_json(folder / "modules.json"):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Normalize":
            settings["normalize"] = True
        elif kind == "Pooling":
            settings["pooling"] = _pooling(read_json(folder / module["path"] / "config.json"))
        elif kind != "Transformer":
            raise OperatorError(f"{folder} has a sentence-transformers module {kind}; Pooling and Normalize are known")
    prompts = folder / "config_sentence_transformers.json"
    if prompts.is_file() and (name := read_json(prompts).get("default_prompt_name")):
        raise OperatorError(f"{folder} puts the prompt {name!r} before every text; that is not supported")
    file = folder / "sentence_bert_config.json"
    if file.is_file() and (length := read_json(file).get("max_seq_length")):
        settings["max_length"] = int(length)
    return settings


def _pooling(config: Mapping[str, Any]) -> str:
    modes = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    if (named := config.get("pooling_mode")) in modes.values():
        return str(named)
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in modes:
        raise OperatorError(f"the folder pools by {chosen or config.get('pooling_mode')}; known: mean, cls, max")
    return modes[chosen[0]]


def _labels(config: Any, task: str) -> tuple[str, ...]:
    if task not in ("text-classification", "token-classification"):
        return ()
    names = labels_of(config)
    if len(set(names)) != len(names):
        raise OperatorError(
            "config.json gives two labels one name (id2label); answers name labels, so each needs its own"
        )
    return names


def _max_length(tokenizer: Any, config: Any) -> int:
    """Return what both the tokenizer and the position embeddings allow."""
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        reserved = config.pad_token_id + 1 if config.model_type in _OFFSET_POSITIONS else 0
        limits.append(positions - reserved)
    return min(limits)


_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})
"""Models that number positions from pad_token_id + 1, so that they take that many tokens less."""
