"""A checkpoint's module -> a graph of torch.export: inputs and outputs by name, any batch, any length."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.fx.experimental import _config as symbolic_shapes

from ts_handlers.build.sources.texts import Source
from ts_handlers.errors import OperatorError, first_line

LEAST_LENGTH = 2
"""Attention is exported for two tokens and more, which is what a text has with its special tokens."""

EXAMPLES = ("dynamic axes", "need two texts of one padded length")


class Named(torch.nn.Module):
    """The model with its inputs by name and its outputs in a dict: what a worker feeds and reads by name.

    Args:
        model: The model, as transformers made it.
        source: Whose inputs and outputs it has.
        autocast: Type that matrix products are computed in; None: that of their operands.
    """

    def __init__(self, model: torch.nn.Module, source: Source, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self._output_names, self._autocast = source.output_names, autocast
        self.forward = _named_parameters(self._run, source.input_names)

    def _run(self, **arrays: torch.Tensor) -> dict[str, torch.Tensor]:
        with nullcontext() if self._autocast is None else torch.autocast("cpu", self._autocast):
            outputs = self.model(**arrays, return_dict=True)
        return {name: outputs[name].float() for name in self._output_names}


def copy_model(source: Source) -> Any:
    """Return a copy of the model to change, with the attention that torch has a kernel for, where the model offers it."""
    model = copy.deepcopy(source.model)
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:  # an architecture without it keeps its own
        model.set_attn_implementation("eager")
    return model.eval()


def export_model(
    source: Source, model: torch.nn.Module, autocast: torch.dtype | None = None
) -> torch.export.ExportedProgram:
    """Export a checkpoint's model.

    Raises:
        OperatorError: It cannot be exported.
    """
    return export_module(source, Named(model, source, autocast).eval())


def export_module(source: Source, module: torch.nn.Module) -> torch.export.ExportedProgram:
    """Export a module that takes the source's inputs by name.

    Raises:
        OperatorError: It cannot be exported, or its shortest sequence is too short.
    """
    if source.tokenizer.num_special_tokens_to_add() < LEAST_LENGTH:
        raise OperatorError(
            f"{source.folder} makes sequences of one token, and models are compiled for {LEAST_LENGTH} and more; build it "
            "with --form eager, or for the onnx backend"
        )
    batch = torch.export.Dim("batch", min=1)
    length = torch.export.Dim("length", min=LEAST_LENGTH, max=source.max_length)
    feed = tokenized(source, EXAMPLES)
    shapes = {name: {0: batch, 1: length} for name in feed}
    try:
        with torch.no_grad(), sizes_from_one():
            program = torch.export.export(module, (), feed, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of many kinds
        raise OperatorError(
            f"torch.export cannot export {type(source.model).__name__} ({first_line(error)}); build it with --form eager, "
            "or for the onnx backend"
        ) from error
    return program


def sizes_from_one() -> AbstractContextManager[None]:
    """Treat the size of a batch as unknown from 1 on; torch otherwise exports and compiles for 2 and more.

    It tells 1 apart, because an axis of one element can be broadcast.
    """
    config: Any = symbolic_shapes  # its methods are added when it is imported
    patch: AbstractContextManager[None] = config.patch(backed_size_oblivious=True)
    return patch


def tokenized(source: Source, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return texts as the model's inputs, padded to the longest."""
    encoded = source.tokenizer(list(texts), padding=True, return_tensors="pt")
    return {name: encoded[name] for name in source.input_names}


def _named_parameters(function: Any, names: Sequence[str]) -> Any:
    """Give a function of keywords a signature with these parameters, which torch.export reads the names from."""

    def forward(**arrays: torch.Tensor) -> Any:
        return function(**arrays)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return forward
