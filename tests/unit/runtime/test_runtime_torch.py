from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.unit.build.materials import material
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

SHARE = cpu_share(CpuBudget((0,)), 1)

DOUBLER = """
import torch
from torch.nn import Linear


class Doubler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask):
        assert torch.is_inference_mode_enabled()
        doubled = input_ids * self.weight
        return RETURNED
"""


def write_model(folder: Path, returned: str = "doubled", suffix: str = ".pt") -> ModelFiles:
    (folder / "doubler.py").write_text(DOUBLER.replace("RETURNED", returned), encoding="utf-8")
    state = {"weight": torch.tensor([2.0])}
    if suffix == ".pt":
        torch.save(state, folder / "weights.pt")
    else:
        from safetensors.torch import save_file

        save_file(state, str(folder / "weights.safetensors"))
    return ModelFiles(folder, f"weights{suffix}", "doubler.py")


def run(session: Session) -> dict[str, np.ndarray]:
    ids = np.array([[1, 2]])
    return session.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_state_dict_with_its_model_file(suffix: str, precision: str, tmp_path: Path) -> None:
    config = RuntimeConfig(backend="torch", precision=precision)  # type: ignore[arg-type]  # a parameter
    session = open_session(config, write_model(tmp_path, suffix=suffix), SHARE)
    outputs = run(session)
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].tolist() == [[2.0, 4.0]]
    assert session.describe() == f"torch {torch.__version__} on cpu, {precision}"


@pytest.mark.parametrize("returned", ["(doubled, input_ids)", "{'a': doubled, 'b': input_ids, 'note': 'x'}"])
def test_outputs_are_named(returned: str, tmp_path: Path) -> None:
    config = RuntimeConfig(backend="torch", output_names=("a", "b"))
    outputs = run(open_session(config, write_model(tmp_path, returned), SHARE))
    assert {name: array.tolist() for name, array in outputs.items()} == {"a": [[2.0, 4.0]], "b": [[1, 2]]}


@pytest.mark.parametrize(
    ("returned", "keys"),
    [
        ("(input_ids, doubled)", ("1", "0")),
        ("{'x': input_ids, 'y': doubled, 'z': doubled}", ("y", "x")),
        ("__import__('collections').namedtuple('Pair', 'x y')(input_ids, doubled)", ("y", "x")),
        ("__import__('dataclasses').make_dataclass('Pair', ['x', 'y'])(input_ids, doubled)", ("y", "x")),
    ],
)
def test_outputs_are_picked_by_their_keys(returned: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    config = RuntimeConfig(backend="torch", output_names=("a", "b"), output_keys=keys)
    outputs = run(open_session(config, write_model(tmp_path, returned), SHARE))
    assert {name: array.tolist() for name, array in outputs.items()} == {"a": [[2.0, 4.0]], "b": [[1, 2]]}


def test_keys_that_the_model_does_not_have(tmp_path: Path) -> None:
    config = RuntimeConfig(backend="torch", output_keys=("logits",))
    session = open_session(config, write_model(tmp_path, "{'x': doubled}"), SHARE)
    with pytest.raises(ConfigError, match="output_keys are logits for the names logits, and the model returns x"):
        run(session)


def test_outputs_without_a_name_are_an_error(tmp_path: Path) -> None:
    session = open_session(RuntimeConfig(backend="torch"), write_model(tmp_path, "(doubled, doubled)"), SHARE)
    with pytest.raises(ConfigError, match="returns 2 outputs and handler.runtime.output_names names 1"):
        run(session)


def test_a_hugging_face_folder_feeds_what_its_forward_takes(model_dirs: ModelDirs) -> None:
    folder = model_dirs.get("tiny-distilbert", backend="torch")
    session = open_session(RuntimeConfig(backend="torch"), ModelFiles(folder, "model.safetensors"), SHARE)
    assert run(session)["logits"].shape == (1, 2)


def test_a_gpu_that_is_not_there_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_model(tmp_path)
    files = ModelFiles(files.model_dir, files.serialized_file, files.model_file, gpu_id=3)
    session = open_session(RuntimeConfig(backend="torch"), files, SHARE)
    assert "on cpu" in session.describe()
    assert "GPU 3 is not used" in caplog.text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "defines 0 torch.nn.Module classes"),
        ("from torch.nn import Module\nclass A(Module): pass\nclass B(Module): pass", r"defines 2 .*\(A, B\)"),
    ],
)
def test_a_model_file_must_define_one_module(source: str, message: str, tmp_path: Path) -> None:
    files = write_model(tmp_path)
    (tmp_path / "doubler.py").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        open_session(RuntimeConfig(backend="torch"), files, SHARE)


def test_what_the_backend_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs a module in fp32, bf16, fp16"):
        open_session(RuntimeConfig(backend="torch", precision="int8"), ModelFiles(tmp_path), SHARE)
    with pytest.raises(ConfigError, match="neither a model file nor a config.json"):
        open_session(RuntimeConfig(backend="torch"), ModelFiles(tmp_path), SHARE)
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="gone.py is not a Python file"):
        open_session(RuntimeConfig(backend="torch"), ModelFiles(tmp_path, "weights.pt", "gone.py"), SHARE)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["NoSuchModel"]}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"names the architectures \['NoSuchModel'\]"):
        open_session(RuntimeConfig(backend="torch"), ModelFiles(tmp_path), SHARE)


def test_without_transformers_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeUnavailableError, match="needs transformers in the serving image"):
        open_session(RuntimeConfig(backend="torch"), ModelFiles(tmp_path), SHARE)


def test_an_engine_in_bf16_leaves_the_source_as_it_was(model_dirs: ModelDirs, tmp_path: Path) -> None:
    given = material(model_dirs, "tiny-distilbert", tmp_path)
    before = {name: tensor.clone() for name, tensor in given.source.model.state_dict().items()}
    find_method("torch", "bf16", None).make(given, tmp_path)
    after = given.source.model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
