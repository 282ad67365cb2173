"""Objects in a model's file are never run, and what is said of them is no advice to run them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ts_handlers.build.image_files.torch_file import load_exported
from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.runtime.session import ModelFiles
from ts_handlers.runtime.torch.module import load_module
from ts_handlers.runtime.torch.package import open_package


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """Return the file that `foreign` makes when it is run."""
    return tmp_path / "touched"


@pytest.fixture
def foreign(tmp_path: Path, touched: Path) -> Path:
    """Return a graph of torch.export that holds an object in place of its sample inputs."""
    exported = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(exported, tmp_path / "plain.pt2")
    samples = io.BytesIO()
    torch.save(((Touch(touched),), {}), samples)
    with zipfile.ZipFile(tmp_path / "plain.pt2") as plain, zipfile.ZipFile(tmp_path / "foreign.pt2", "w") as foreign:
        for name in plain.namelist():
            foreign.writestr(name, samples.getvalue() if "sample_inputs" in name else plain.read(name))
    return tmp_path / "foreign.pt2"


def test_a_build_does_not_run_objects_of_an_exported_graph(foreign: Path, touched: Path) -> None:
    with pytest.raises(OperatorError, match="holds more than tensors beside its graph") as caught:
        load_exported(foreign)
    assert "weights_only" not in str(caught.value)
    assert not touched.exists()


def test_nor_does_a_worker(foreign: Path, touched: Path) -> None:
    with pytest.raises(ConfigError, match="holds more than tensors beside its graph"):
        open_package(RuntimeConfig(backend="torch"), ModelFiles(foreign.parent, foreign.name), torch.device("cpu"))
    assert not touched.exists()


def test_plain_graphs_are_read_and_the_environment_is_left_as_it_was(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    load_exported(foreign.with_name("plain.pt2"))
    torch.save({"file": foreign}, foreign.with_name("other.pt"))
    assert torch.load(foreign.with_name("other.pt"), weights_only=False) == {"file": foreign}


def test_a_worker_does_not_run_objects_in_its_weights(tmp_path: Path, touched: Path) -> None:
    (tmp_path / "model.py").write_text("from torch.nn import ReLU\n\n\nclass Net(ReLU): ...\n")
    torch.save({"weight": Touch(touched)}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"model.pt holds an object of the type [\w.]+, which is not read") as caught:
        load_module(RuntimeConfig(backend="torch", file="model.pt"), ModelFiles(tmp_path, None, "model.py"))
    assert "weights_only" not in str(caught.value)
    assert not touched.exists()
