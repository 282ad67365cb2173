"""Weights as training loops save them -> the state dict of one module, key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ts_handlers.errors import OperatorError, all_lines
from ts_handlers.runtime.torch.module import refusal
from ts_handlers.runtime.torch.script import is_script

State = dict[str, torch.Tensor]

_WRAPPERS = frozenset({"module", "_orig_mod"})
"""What DataParallel and torch.compile put into keys, at their beginning or at that of a part."""

_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Counters of training, which old files lack and averaged models add; no answer depends on them."""

_DEEPEST = 3
"""How many mappings may lie in one another, as in {"ema": {"state_dict": {"module": ...}}}."""

_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_GLOBALS: list[Any] = [
    *((_SCALAR, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdg"},
]
"""What numpy's numbers are made of when they are read, by the names of numpy 1 and 2: numbers, and no code."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a module, found in a file.

    Attributes:
        state: Its state dict, with its own keys.
        note: Where in the file they were, and what was cut off their names; empty where they are all that it has.
    """

    state: State
    note: str = ""


def find_weights(path: Path, module: torch.nn.Module) -> Weights:
    """Find the weights of a module in a file: every one of its own, and nothing else beside them.

    Raises:
        OperatorError: The file cannot be read, or has no such weights, or several.
    """
    contents = _read(path)
    expected = dict(module.state_dict())
    groups = dict(_groups(contents))
    if not groups:
        raise OperatorError(f"{path} holds {_described(contents)} and no state dict; save model.state_dict()")
    fitting = {key: state for key, group in groups.items() if (state := _renamed(group, expected)) is not None}
    if not fitting:
        pairs = [(key, state) for key, group in groups.items() for state in _candidates(group)]
        nearest = min(pairs, key=lambda pair: len(set(pair[1]) ^ set(expected)))
        raise OperatorError(f"{path} does not fit {type(module).__name__}: {_difference(*nearest, expected)}")
    chosen = _choose(path, fitting)
    state = fitting[chosen]
    return Weights(state, _note(chosen, groups[chosen], state, [key for key in fitting if key != chosen]))


def _read(path: Path) -> Any:
    if is_script(path):
        raise OperatorError(f"{path} is TorchScript and no state dict; leave out --model-file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # files are broken in many ways
        if "weights_only" in str(error):
            raise OperatorError(refusal(str(path), error)) from error
        raise OperatorError(f"{path} is no file of weights: {all_lines(error)}") from error


def _groups(contents: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Give each mapping of names to tensors, and the keys that lead to it."""
    if not isinstance(contents, Mapping) or depth > _DEEPEST:
        return
    tensors = {
        str(name): value
        for name, value in contents.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield where, tensors
    for name, value in contents.items():
        yield from _groups(value, f"{where}.{name}" if where else str(name), depth + 1)


def _renamed(group: State, expected: State) -> State | None:
    """Return a group under the module's own keys; None where it does not have all of them, or others, too."""
    for state in _candidates(group):
        missing, unexpected = set(expected) - set(state), set(state) - set(expected)
        if all(name.rsplit(".", 1)[-1] in _COUNTERS for name in missing | unexpected):
            return {name: state.get(name, tensor) for name, tensor in expected.items()}
    return None


def _candidates(group: State) -> Iterator[State]:
    """Give a group as it is, without wrappers' names, and without one part more and more of what all keys begin with."""
    yield group
    paths = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in group}
    paths = {name: parts for name, parts in paths.items() if parts and name not in _COUNTERS}
    if not paths:
        return
    shortest = min(len(parts) for parts in paths.values())
    for start in range(shortest):
        if len({tuple(parts[:start]) for parts in paths.values()}) > 1:
            return
        state = {".".join(parts[start:]): group[name] for name, parts in paths.items()}
        if len(state) == len(paths):
            yield state


def _choose(path: Path, fitting: Mapping[str, State]) -> str:
    """Return the key of the weights to take: of equal ones the first, of several the only average.

    Raises:
        OperatorError: They differ, and nothing says which are meant.
    """
    first, *others = fitting
    if all(_are_equal(fitting[first], fitting[key]) for key in others):
        return first
    averages = [key for key in fitting if "ema" in re.split(r"[._]", key.lower())]
    if len(averages) == 1:
        return averages[0]
    raise OperatorError(
        f"{path} has several weights that fit, and they differ: {', '.join(map(_shown, fitting))}; save the one to serve "
        "alone, with torch.save(state_dict, PATH)"
    )


def _are_equal(left: State, right: State) -> bool:
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def _note(chosen: str, group: State, state: State, left: list[str]) -> str:
    parts = []
    if chosen or left:
        parts.append(f"the weights are those under {_shown(chosen)}")
    if left:
        parts.append(f"not those under {', '.join(map(_shown, left))}, which fit, too")
    own = next((name for name in group if name not in _COUNTERS and name not in state), None)
    if own is not None:
        parts.append(f"keys are shortened, as in {own}")
    return "; ".join(parts)


def _difference(key: str, group: State, expected: State) -> str:
    missing, unexpected = sorted(set(expected) - set(group)), sorted(set(group) - set(expected))
    where = f" (under {_shown(key)})" if key else ""
    parts = [f"missing {_few(missing)}"] if missing else []
    parts += [f"unexpected {_few(unexpected)}"] if unexpected else []
    return f"{' and '.join(parts)}{where}; give the class that these weights are of"


def _few(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shown(key: str) -> str:
    return repr(key) if key else "the file's own keys"


def _described(contents: Any) -> str:
    if isinstance(contents, Mapping):
        return f"the keys {_few([str(key) for key in contents])}" if contents else "nothing"
    return f"a {type(contents).__name__}"
