"""A text model's Hugging Face folder (or hub id) and what the build needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ts_handlers.build.sources.checkpoint import account_for_weights, load_checkpoint
from ts_handlers.build.sources.model import ModelSource, digest, find_folder, labels_of
from ts_handlers.build.sources.sentence import SentenceModel, read_sentence_model
from ts_handlers.build.sources.text_limits import find_max_length, neighbours_show, padding_shows, remembers_lengths
from ts_handlers.build.sources.tokenizer import choose_inputs, filler, load_tokenizer, other_file_notes
from ts_handlers.errors import OperatorError
from ts_handlers.shapes import Array

_LESS_THAN_A_TOKEN = 0.5
"""Cost of a call with which texts of one length share calls, and no others: one token of padding costs more."""


@dataclass(frozen=True, slots=True)
class Source(ModelSource):
    """A text checkpoint in memory, with eager attention (the form ONNX Runtime's optimizer fuses).

    Attributes:
        tokenizer: Its fast tokenizer; it makes the arrays of input_names.
        max_length: Most tokens of a sequence.
        can_pad: Whether a text is answered alike alone and padded beside a longer one.
        sentence: What sentence-transformers makes of the folder; None where it is none of its own.
    """

    tokenizer: Any
    max_length: int
    can_pad: bool = True
    sentence: SentenceModel | None = None

    @property
    def sequence_outputs(self) -> tuple[str, ...]:
        """Outputs with the sequence as their second axis."""
        return () if self.task == "text-classification" else self.output_names

    @property
    def pad_values(self) -> Mapping[str, int]:
        """The padding token's id for input_ids, 0 elsewhere."""
        return {"input_ids": self.tokenizer.pad_token_id or 0}

    @property
    def is_pair(self) -> bool:
        """Whether a sequence is made of two texts."""
        return self.task == "question-answering"

    def filler(self, length: int) -> dict[str, Any]:
        """Return the arrays of a text of no meaning, as lists of about `length` numbers."""
        return filler(self.tokenizer, length, is_pair=self.is_pair)

    def call_arrays(self, rows: int, length: int) -> dict[str, Array]:
        """Return what a call is fed whose texts have no meaning, each array `(rows, length) int64`."""
        found = {name: np.asarray(values, dtype=np.int64) for name, values in self.filler(length).items()}
        middle = {name: np.repeat(array[len(array) // 2], max(0, length - len(array))) for name, array in found.items()}
        whole = {
            name: np.concatenate([array[: len(array) // 2], middle[name], array[len(array) // 2 :]])[:length]
            for name, array in found.items()
        }
        return {name: np.repeat(whole[name][None], rows, axis=0) for name in self.input_names}

    def example(self) -> dict[str, torch.Tensor]:
        """Return two texts, padded to one length; a single one where there is no padding."""
        rows = 1 if self.tokenizer.pad_token_id is None else 2
        texts = ["dynamic axes", "need two texts of one padded length"][:rows]
        encoded = self.tokenizer(
            texts,
            ["here"] * rows if self.is_pair else None,
            padding=rows > 1,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
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
        """Return the tokenizer's settings, what the folder says of the output, and whether texts may be padded."""
        tokenizer: dict[str, Any] = {
            "max_length": self.max_length,
            "pad_token_id": self.tokenizer.pad_token_id or 0,
            "truncation_side": self.tokenizer.truncation_side,
            "split_special_tokens": bool(self.tokenizer.split_special_tokens),
            "input_names": list(self.input_names),
        }
        if self.tokenizer.unk_token_id is not None:
            tokenizer["unk_token_id"] = self.tokenizer.unk_token_id
        output: dict[str, Any] = {} if self.sentence is None else dict(self.sentence.output)
        if self.task == "text-classification" and self.model.config.problem_type:
            output["problem_type"] = self.model.config.problem_type
        found: dict[str, Any] = {"tokenizer": tokenizer, "output": output}
        if self.max_batch_size is not None:
            found["bucketing"] = {"max_batch_size": self.max_batch_size}
        elif not self.can_pad:
            found["bucketing"] = {"call_overhead_tokens": _LESS_THAN_A_TOKEN}
        return found


def load_source(source: str, task: str) -> Source:
    """Read a checkpoint.

    Args:
        source: Folder that `save_pretrained` or sentence-transformers wrote, or a hub id.
        task: A text task.

    Raises:
        OperatorError: It cannot be read, or does not serve the task.
    """
    folder = find_folder(source)
    sentence = read_sentence_model(folder) if task == "feature-extraction" else None
    inner = folder if sentence is None else sentence.folder
    checkpoint = load_checkpoint(source, inner, task)
    model = checkpoint.model
    tokenizer = load_tokenizer(source, inner, task) if sentence is None else sentence.tokenizer
    if task == "question-answering" and tokenizer.padding_side != "right":
        raise OperatorError(f"{source} pads on the left; question-answering needs padding on the right")
    input_names = choose_inputs(tokenizer, inner, model)
    is_pair = task == "question-answering"
    max_length = find_max_length(model, tokenizer, is_pair=is_pair)
    found = Source(
        folder=folder,
        task=task,
        model=model,
        labels=_labels(model.config, task),
        input_names=input_names,
        digest=digest(folder),
        tokenizer=tokenizer,
        max_length=max_length,
        sentence=sentence,
        notes=other_file_notes(tokenizer, folder),
    )
    account_for_weights(found, checkpoint, source)
    is_alone = tokenizer.pad_token_id is None  # some models look for it to find the end of each row
    is_alone = is_alone or (task == "text-classification" and neighbours_show(found))
    return dataclasses.replace(
        found,
        max_batch_size=1 if is_alone else None,
        can_pad=not padding_shows(found),
        remembers=remembers_lengths(found),
    )


def _labels(config: Any, task: str) -> tuple[str, ...]:
    if task not in ("text-classification", "token-classification"):
        return ()
    names = labels_of(config)
    if task == "text-classification" and len(set(names)) != len(names):
        raise OperatorError(
            "config.json gives two labels one name (id2label); answers name labels, so each needs its own"
        )
    return names
