"""A Hugging Face folder (or hub id) and what the build needs to know of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers

from ts_handlers.errors import OperatorError, first_line

_MODEL_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "feature-extraction": "AutoModel",
}

OUTPUT_NAMES: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "feature-extraction": ("last_hidden_state",),
}
"""Outputs of each task's model, in the order they are exported."""


_TOKENIZER_FILES = frozenset({"tokenizer.json", "vocab.txt", "vocab.json"})
"""Without one of them (or a sentencepiece .model) transformers makes up an empty tokenizer."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in memory.

    Attributes:
        folder: Where it was read.
        task: What it is built for.
        model: The model, in fp32, in eval mode, with eager attention (the form ONNX Runtime's optimizer fuses).
        tokenizer: Its fast tokenizer.
        labels: Names of its labels, by index; empty where the task has none.
        input_names: Arrays the tokenizer makes and the model takes.
        max_length: Most tokens of a sequence.
        digest: SHA-256 over names and contents of the folder's files.
    """

    folder: Path
    task: str
    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    input_names: tuple[str, ...]
    max_length: int
    digest: str

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return OUTPUT_NAMES[self.task]

    @property
    def sequence_outputs(self) -> tuple[str, ...]:
        """Those of them with the sequence as their second axis."""
        return () if self.task == "text-classification" else self.output_names


def load_source(source: str, task: str) -> Source:
    """Read a checkpoint.

    Args:
        source: Folder that `save_pretrained` wrote, or a hub id.
        task: A task of `_MODEL_CLASSES`.

    Raises:
        OperatorError: It cannot be read, or does not serve the task.
    """
    folder = _find_folder(source)
    if not (folder / "config.json").is_file():
        raise OperatorError(f"{source} has no config.json; give a folder that save_pretrained wrote, or a hub id")
    transformers.utils.logging.disable_progress_bar()  # the build prints its own steps
    try:
        model = getattr(transformers, _MODEL_CLASSES[task]).from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # a checkpoint can be broken in as many ways as there are architectures
        raise OperatorError(f"{source} cannot be loaded for {task}: {first_line(error)}") from error
    _check_head(source, model, task)
    if not any(file.name in _TOKENIZER_FILES or file.suffix == ".model" for file in folder.iterdir()):
        raise OperatorError(f"{source} has no tokenizer (tokenizer.json, vocab.txt ...); save it beside the model")
    if not tokenizer.is_fast:
        raise OperatorError(f"{source} has no fast tokenizer; a worker needs a tokenizer.json")
    if task == "question-answering" and tokenizer.padding_side != "right":
        raise OperatorError(f"{source} pads on the left; question-answering needs padding on the right")
    return Source(
        folder,
        task,
        model.eval(),
        tokenizer,
        _labels(model.config, task),
        tuple(tokenizer.model_input_names),
        _max_length(tokenizer, model.config),
        digest(folder),
    )


def sentence_settings(folder: Path) -> dict[str, Any]:
    """Read pooling, normalization and maximum length from sentence-transformers' files; {} where there are none.

    Raises:
        OperatorError: The folder has a step that the handler does not have, so that its vectors would be others.
    """
    if not (folder / "modules.json").is_file():
        return {}
    settings: dict[str, Any] = {}
    for module in _read_json(folder / "modules.json"):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Normalize":
            settings["normalize"] = True
        elif kind == "Pooling":
            settings["pooling"] = _pooling(_read_json(folder / module["path"] / "config.json"))
        elif kind != "Transformer":
            raise OperatorError(f"{folder} has a sentence-transformers module {kind}; Pooling and Normalize are known")
    prompts = folder / "config_sentence_transformers.json"
    if prompts.is_file() and (name := _read_json(prompts).get("default_prompt_name")):
        raise OperatorError(f"{folder} puts the prompt {name!r} before every text; that is not supported")
    file = folder / "sentence_bert_config.json"
    if file.is_file() and (length := _read_json(file).get("max_seq_length")):
        settings["max_length"] = int(length)
    return settings


def digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.sha256()
            while block := stream.read(2**20):
                content.update(block)
        total.update(f"{file.relative_to(folder)}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _find_folder(source: str) -> Path:
    """Return the folder of a checkpoint, fetched from the hub where it is not one."""
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(huggingface_hub.snapshot_download(source))
    except Exception as error:  # the hub client raises errors of several packages
        raise OperatorError(
            f"there is no folder {source}, and no such model on the hub: {first_line(error)}"
        ) from error


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
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if sorted(names) != list(range(config.num_labels)):
        raise OperatorError(f"config.json names {len(names)} labels (id2label) and has {config.num_labels}; name each")
    if len(set(names.values())) != len(names):
        raise OperatorError(
            "config.json gives two labels one name (id2label); answers name labels, so each needs its own"
        )
    return tuple(names[index] for index in range(len(names)))


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


def _check_head(source: str, model: Any, task: str) -> None:
    """Refuse a checkpoint without the head that the task needs: transformers would make one up at random."""
    names = model.config.architectures or []
    if task == "feature-extraction" or type(model).__name__ in names:
        return
    raise OperatorError(
        f"{source} holds {', '.join(names) or 'no named architecture'} and {task} needs {type(model).__name__}: "
        "its head would be random; fine-tune it first"
    )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"{file} cannot be read: {first_line(error)}") from error
