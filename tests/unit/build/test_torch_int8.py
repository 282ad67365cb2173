"""INT8 of the torch backend; what needs torchao or Intel Neural Compressor is skipped where they are not installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.unit.build.materials import material
from ts_handlers.build.compile import copy_model, export_model
from ts_handlers.build.compile.program import EXAMPLES, tokenized
from ts_handlers.build.methods import torch_inc, torch_torchao
from ts_handlers.build.methods.catalogue import find_method, missing_packages
from ts_handlers.build.target import TARGETS, target_cpu
from ts_handlers.config import RuntimeConfig
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import ModelFiles, open_session

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

KIND = "tiny-distilbert"


@pytest.mark.parametrize("module", [torch_torchao, torch_inc])
def test_a_cpu_without_vnni_is_refused(
    module: object, model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "check_compiler", lambda: None)
    given = material(model_dirs, KIND, tmp_path, TARGETS["avx2"], num_samples=6)
    with pytest.raises(OperatorError, match="sums of their products saturate on avx2, which has no VNNI"):
        module.make(given, tmp_path)  # type: ignore[attr-defined]  # a module


def test_linear_layers_are_wrapped_but_the_pooler_and_the_head(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = material(model_dirs, "tiny-mpnet", tmp_path).source
    model = copy_model(source)
    expected = model(**tokenized(source, EXAMPLES))
    num_layers = torch_torchao._flatten_linear(model.base_model)
    names = [name for name, part in model.named_modules() if torch_torchao._is_flat(part, name)]
    assert len(names) == num_layers == 12
    assert isinstance(model.pooler.dense, torch.nn.Linear)
    actual = model(**tokenized(source, EXAMPLES))
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)


def test_a_graph_is_a_session(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = material(model_dirs, KIND, tmp_path).source
    session = torch_inc.GraphSession(export_model(source, copy_model(source)).module(), source.input_names)
    feed = tokenized(source, EXAMPLES)
    expected = source.model(**feed).logits.detach().numpy()
    actual = session.run({name: tensor.numpy() for name, tensor in feed.items()})
    np.testing.assert_allclose(actual["logits"], expected, rtol=1e-4, atol=1e-4)
    session.resize(cpu_share(CpuBudget((0,)), 1))
    assert (session.max_parallel, session.describe()) == (1, "a graph")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.skipif(not target_cpu("native").has_vnni, reason="this CPU has no VNNI")
@pytest.mark.parametrize("quantizer", ["torchao", "inc"])
@pytest.mark.filterwarnings("ignore")
def test_int8_is_near_fp32_and_not_fp32(quantizer: str, model_dirs: ModelDirs) -> None:
    method = find_method("torch", "int8", quantizer)
    if missing := missing_packages(method):
        pytest.skip(f"{', '.join(missing)} is not installed")
    folder = model_dirs.get(KIND, backend="torch", precision="int8", quantizer=quantizer, form="compiled")
    fp32 = model_dirs.get(KIND, backend="torch")
    share = cpu_share(CpuBudget((0,)), 1)
    int8 = open_session(RuntimeConfig(backend="torch", precision="int8"), ModelFiles(folder, "model.pt2"), share)
    eager = open_session(RuntimeConfig(backend="torch"), ModelFiles(fp32, "model.safetensors"), share)
    ids = np.random.default_rng(3).integers(5, 300, (5, 19))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    actual, expected = int8.run(arrays)["logits"], eager.run(arrays)["logits"]
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.3
    alone = int8.run({name: array[:1] for name, array in arrays.items()})["logits"]
    assert np.linalg.norm(alone - expected[:1]) / np.linalg.norm(expected[:1]) < 0.5
