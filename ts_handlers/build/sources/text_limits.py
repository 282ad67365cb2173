"""How long a text the model takes, and whether padding shows in its answers: asked of the model, not of its name."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from ts_handlers.build.sources.model import copy_of
from ts_handlers.build.sources.tokenizer import filler
from ts_handlers.config.sections import LimitsConfig
from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.nlp.tokenization import NO_MAX_LENGTH

if TYPE_CHECKING:
    from ts_handlers.build.sources.texts import Source

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
            f"{type(model).__name__} fails on a text of {shortest} tokens: {type(error).__name__}: {all_lines(error)}; "
            "correct the checkpoint"
        )
    if claimed > WHOLE_LENGTH and failure(WHOLE_LENGTH):  # it is within its layers that it takes no more
        claimed = WHOLE_LENGTH
    if claimed <= shortest or failure(claimed) is None:
        return max(shortest, claimed)
    return shortest - 1 + bisect_left(range(shortest, claimed), True, key=lambda length: failure(length) is not None)


def remembers_lengths(source: Source) -> bool:
    """Say whether a long text is answered otherwise after a short one than by a model that has seen none."""
    short, long = (_tensors(source.filler(length)) for length in (1, min(source.max_length, WHOLE_LENGTH)))
    used = copy_of(source.model)
    with torch.inference_mode():
        used(**short)
        after, first = (each(**long, return_dict=True) for each in (used, copy_of(source.model)))
    return any(not torch.equal(after[name], first[name]) for name in source.output_names if name in first)


def padding_shows(source: Source) -> bool:
    """Say whether a text is answered otherwise where it is padded on its right, as it is beside a longer one."""
    pad_token_id = source.tokenizer.pad_token_id
    if pad_token_id is None:
        return True
    text = source.filler(min(12, max(1, source.max_length - _PADDING)))
    surplus = min(_PADDING, source.max_length - len(text["input_ids"]))
    fill = {"input_ids": pad_token_id}
    padded = {name: [*values, *[fill.get(name, 0)] * surplus] for name, values in text.items()}
    return surplus > 0 and _differ(source, [text], _tensors(padded))


def neighbours_show(source: Source) -> bool:
    """Say whether a text is answered otherwise beside a pair of the same length.

    Models that look for the separator (BART, T5) take as many of each row as of the first.
    """
    items = [filler(source.tokenizer, min(12, source.max_length), is_pair=is_pair) for is_pair in (False, True)]
    return len({len(item["input_ids"]) for item in items}) == 1 and _differ(source, items, _tensors(*items))


def _differ(source: Source, items: Sequence[dict[str, Any]], together: dict[str, torch.Tensor]) -> bool:
    """Say whether the rows of a call are answered otherwise than the items are, each in a call of its own."""
    try:
        with torch.inference_mode():
            both = copy_of(source.model)(**together, return_dict=True)
            alone = [copy_of(source.model)(**_tensors(item), return_dict=True) for item in items]
    except Exception:  # noqa: BLE001  # a model that cannot be called so raises what it likes
        return True
    for row, item in enumerate(items):
        for name in source.output_names:
            want, got = alone[row][name][0], both[name][row]
            got = got if got.shape == want.shape else got[: len(item["input_ids"])]  # an output for each token
            difference = torch.linalg.vector_norm((want - got).float())
            if difference > PADDING_TOLERANCE * torch.linalg.vector_norm(want.float()).clamp(min=1e-6):
                return True
    return False


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


def _tensors(*items: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([item[name] for item in items], dtype=torch.int64) for name in items[0]}
