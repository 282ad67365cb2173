"""How long a text the model takes, and whether padding shows in its answers: asked of the model, not of its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from ts_handlers.build.model_source import copy_of
from ts_handlers.build.texts.tokenizer import filler
from ts_handlers.config import LimitsConfig
from ts_handlers.errors import OperatorError, first_line
from ts_handlers.tokenization import NO_MAX_LENGTH

WHOLE_LENGTH = 1024
"""Up to so many tokens the whole model is run; of longer texts what is before its layers: attention costs the square."""

PADDING_TOLERANCE = 1e-3
"""Relative difference by which padding may move an output: other kernels are taken for another shape."""

_PADDING = 8
"""Tokens that the padded text is longer."""


class _ReachedLayersError(Exception):
    """Ends a run of the model before its layers."""


def find_max_length(model: Any, tokenizer: Any, *, is_pair: bool) -> int:
    """Return the most tokens of a sequence that the tokenizer makes and the model takes.

    Raises:
        OperatorError: The model does not take a short text.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    claimed = int(min(tokenizer.model_max_length, NO_MAX_LENGTH))
    if claimed == NO_MAX_LENGTH:
        claimed = positions if isinstance(positions, int) and positions > 0 else LimitsConfig().max_tokens

    def failure(length: int) -> Exception | None:
        return _failure(model, _tensors(filler(tokenizer, length, is_pair=is_pair)), is_whole=length <= WHOLE_LENGTH)

    shortest = len(filler(tokenizer, 1, is_pair=is_pair)["input_ids"])
    if error := failure(shortest):
        raise OperatorError(
            f"{type(model).__name__} fails on a text of {shortest} tokens: {type(error).__name__}: {first_line(error)}; "
            "correct the checkpoint"
        )
    if claimed > WHOLE_LENGTH and failure(WHOLE_LENGTH):  # it is within its layers that it takes no more
        claimed = WHOLE_LENGTH
    return _largest(shortest, max(shortest, claimed), lambda length: failure(length) is None)


def remembers_lengths(
    model: Any, tokenizer: Any, output_names: tuple[str, ...], max_length: int, *, is_pair: bool
) -> bool:
    """Say whether a long text is answered otherwise after a short one than by a model that has seen none."""
    short, long = (filler(tokenizer, length, is_pair=is_pair) for length in (1, min(max_length, WHOLE_LENGTH)))
    used = copy_of(model)
    with torch.inference_mode():
        used(**_tensors(short))
        after, first = (each(**_tensors(long), return_dict=True) for each in (used, copy_of(model)))
    return any(not torch.equal(after[name], first[name]) for name in output_names if name in first)


def padding_shows(model: Any, tokenizer: Any, output_names: tuple[str, ...], max_length: int, *, is_pair: bool) -> bool:
    """Say whether a text is answered otherwise where it is padded on its right, as it is beside a longer one."""
    if tokenizer.pad_token_id is None:
        return True
    texts = filler(tokenizer, min(12, max(1, max_length - _PADDING)), is_pair=is_pair)
    length = len(texts["input_ids"])
    surplus = min(_PADDING, max_length - length)
    if surplus < 1:
        return False
    fill = {"input_ids": tokenizer.pad_token_id}
    padded = {name: [*values, *[fill.get(name, 0)] * surplus] for name, values in texts.items()}
    try:
        with torch.inference_mode():
            alone, beside = (copy_of(model)(**_tensors(item), return_dict=True) for item in (texts, padded))
    except Exception:  # noqa: BLE001  # a model that cannot be padded raises what it likes
        return True
    return any(_differs(alone[name][0], beside[name][0], length) for name in output_names)


def neighbours_show(model: Any, tokenizer: Any, output_names: tuple[str, ...], max_length: int) -> bool:
    """Say whether a text is answered otherwise beside a pair of the same length.

    Models that look for the separator (BART, T5) take as many of each row as of the first.
    """
    length = min(12, max_length)
    items = [filler(tokenizer, length, is_pair=is_pair) for is_pair in (False, True)]
    if len({len(item["input_ids"]) for item in items}) > 1:
        return False
    together = {name: torch.tensor([item[name] for item in items]) for name in items[0]}
    try:
        with torch.inference_mode():
            both = copy_of(model)(**together, return_dict=True)
            alone = [copy_of(model)(**_tensors(item), return_dict=True) for item in items]
    except Exception:  # noqa: BLE001  # such a model raises what it likes
        return True
    return any(_differs(alone[row][name][0], both[name][row], length) for name in output_names for row in (0, 1))


def _largest(low: int, high: int, works: Callable[[int], bool]) -> int:
    """Return the largest length from `low`, which works, to `high` that works, where all below it do."""
    if works(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _failure(model: Any, arrays: dict[str, torch.Tensor], *, is_whole: bool) -> Exception | None:
    """Run the model on one sequence; return what it raises."""
    try:
        copied = copy_of(model)
        with torch.inference_mode(), contextlib.nullcontext() if is_whole else _without_layers(copied):
            copied(**arrays)
    except _ReachedLayersError:
        return None
    except Exception as error:  # noqa: BLE001  # past its positions a model raises what it likes
        return error
    return None


@contextlib.contextmanager
def _without_layers(model: Any) -> Iterator[None]:
    """Let runs of the model end where its layers begin."""

    def stop(*_: Any) -> NoReturn:
        raise _ReachedLayersError

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    hooks = [layer.register_forward_pre_hook(stop) for layers in lists for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([items], dtype=torch.int64) for name, items in values.items()}


def _differs(alone: torch.Tensor, beside: torch.Tensor, length: int) -> bool:
    if beside.shape != alone.shape:  # an output for each token
        beside = beside[:length]
    difference = torch.linalg.vector_norm((alone - beside).float())
    return bool(difference > PADDING_TOLERANCE * torch.linalg.vector_norm(alone.float()).clamp(min=1e-6))
