"""Weights as training loops save them; the archive has them under the model's own keys."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.build.images.served import PIXELS, serve
from ts_handlers.build.image_files.weights import find_weights
from ts_handlers.errors import OperatorError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters

MODEL_FILE = """
from __future__ import annotations

import torch
from dataclasses import dataclass


@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(18, 3)

    def forward(self, x, flag=False):
        features = torch.nn.functional.avg_pool2d(self.norm(x), 8).flatten(1)
        return Output(self.head(features), features)
"""


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(18, 3)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    module = Net()
    module.norm.running_mean = torch.rand(3)
    return module.eval()


Form = Callable[[dict[str, Any]], Any]


def prefixed(prefix: str) -> Form:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, Form] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "lr": 0.1, "args": {"model": "net"}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "deep": lambda state: {"ema": {"state_dict": state, "decay": 0.9}},
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "a trainer's": lambda state: {"state_dict": prefixed("model.")(state), "hyper_parameters": {}},
    "nested": prefixed("model.student.net."),
    "a part compiled": lambda state: {name.replace("head.", "head._orig_mod."): part for name, part in state.items()},
    "averaged": lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.")(state)},
    "numpy scalars": lambda state: {
        "state_dict": state,
        "best": np.float64(0.7),
        "few": [np.float32(0.5), np.int64(3), np.bool_(True)],  # numpy's own
    },
    "without counters": lambda state: {name: part for name, part in state.items() if "num_batches" not in name},
    "parameters": lambda state: {
        name: torch.nn.Parameter(part) if part.is_floating_point() else part for name, part in state.items()
    },
    "twice the same": lambda state: {"state_dict": state, "backup": state},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found(form: str, tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save(FORMS[form](state), tmp_path / "w.pt")
    found = find_weights(tmp_path / "w.pt", net(1))
    assert list(found.state) == list(state)
    for name, tensor in state.items():
        if "num_batches" not in name:
            torch.testing.assert_close(found.state[name].detach(), tensor, rtol=0, atol=0)
    assert bool(found.note) == (form not in ("plain", "without counters", "parameters"))


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("net", "ema.model")])
def test_the_average_is_taken_and_that_is_said(keys: tuple[str, str], tmp_path: Path) -> None:
    plain, average = net().state_dict(), net(5).state_dict()
    outer, _, inner = keys[1].partition(".")
    torch.save({keys[0]: plain, outer: {inner: average} if inner else average}, tmp_path / "w.pt")
    found = find_weights(tmp_path / "w.pt", net(1))
    assert torch.equal(found.state["head.bias"], average["head.bias"])
    assert found.note == f"the weights are those under '{keys[1]}'; not those under '{keys[0]}', which fit, too"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            lambda state: {"generator": state, "copy": net(5).state_dict()},
            "several weights that fit, and they differ: 'gen",
        ),
        (lambda state: {"head.weight": state["head.weight"]}, "does not fit Net: missing head.bias, norm.bias, norm"),
        (lambda state: {**state, "loss.w": torch.ones(1)}, "does not fit Net: unexpected loss.w"),
        (
            lambda state: prefixed("module.")({name: part for name, part in state.items() if name != "head.bias"}),
            "does not fit Net: missing head.bias;",
        ),
        (lambda state: {"state_dict": state, "args": argparse.Namespace()}, "of the type argparse.Namespace"),
        (lambda _: net(), "holds an object of the type"),
        (lambda _: {"epoch": 3}, "holds the keys epoch and no state dict"),
        (lambda _: 7, "holds a int and no state dict"),
        (lambda _: {}, "holds nothing and no state dict"),
    ],
)
def test_what_is_refused(contents: Form, message: str, tmp_path: Path) -> None:
    torch.save(contents(net().state_dict()), tmp_path / "w.pt")
    with pytest.raises(OperatorError, match=message) as caught:
        find_weights(tmp_path / "w.pt", net(1))
    assert "weights_only" not in str(caught.value)


def test_a_script_is_no_state_dict(tmp_path: Path) -> None:
    script: Any = torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2))  # type: ignore[no-untyped-call]
    script.save(str(tmp_path / "w.pt"))
    with pytest.raises(OperatorError, match="is TorchScript and no state dict; leave out --model-file"):
        find_weights(tmp_path / "w.pt", net())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_they_are_served(backend: str, suffix: str, given: Path) -> None:
    module = net()
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    path = given / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"model_state_dict": state, "best": np.float64(0.5)}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, str(path))
    (given / "model.py").write_text(MODEL_FILE)
    served = serve(path, given, model_file=given / "model.py", backend=backend)
    with torch.no_grad():
        features = torch.nn.functional.avg_pool2d(module.norm(PIXELS), 8).flatten(1)
        scores = module.head(features)[0].softmax(0).tolist()
    assert served.answer() == pytest.approx(dict(zip("abc", scores, strict=True)), abs=1e-5)
    assert "as in module." in served.said[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import gone_module", "cannot be imported and .*: ModuleNotFoundError: No module named 'gone_module'"),
        (MODEL_FILE.replace("self):", "self, size):"), "missing 1 required positional argument: 'size'"),
        (
            MODEL_FILE.replace("18, 3", "18, 4"),
            r"w.pt does not fit Net: .* size mismatch for head.bias: .*\[3\].*\[4\]",
        ),
        ("x = 1", "defines 0 torch.nn.Module classes"),
    ],
)
def test_model_files_that_cannot_be_used(source: str, message: str, given: Path) -> None:
    torch.save(net().state_dict(), given / "w.pt")
    (given / "model.py").write_text(source)
    with pytest.raises(OperatorError, match=message):
        serve(given / "w.pt", given, model_file=given / "model.py")
