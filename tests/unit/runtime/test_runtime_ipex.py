"""The ipex backend with a stand-in that only records what it was asked; scripts/test-ipex has the real extension."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.runtime.test_runtime_torch import run, write_model
from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, RuntimeUnavailableError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session
from ts_handlers.runtime.torch import ipex

SHARE = cpu_share(CpuBudget((0,)), 1)


class FakeIpex(ModuleType):
    """Says that it is a fake, and optimizes nothing."""

    __version__ = "a fake, not the extension"

    def __init__(self) -> None:
        super().__init__("intel_extension_for_pytorch")
        self.asked: list[tuple[torch.dtype, bool, bool]] = []

    def optimize(
        self, module: torch.nn.Module, *, dtype: torch.dtype, inplace: bool, auto_kernel_selection: bool
    ) -> torch.nn.Module:
        self.asked.append((dtype, inplace, auto_kernel_selection))
        return module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeIpex:
    module = FakeIpex()
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", module)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: torch.__version__)
    return module


def opened(files: ModelFiles, precision: Any = "fp32") -> Session:
    return open_session(RuntimeConfig(backend="ipex", precision=precision), files, SHARE)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_module_is_optimized_for_its_precision(
    precision: str, dtype: torch.dtype, fake: FakeIpex, tmp_path: Path
) -> None:
    session = opened(write_model(tmp_path), precision)
    outputs = run(session)
    assert fake.asked == [(dtype, True, True)]
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].tolist() == [[2.0, 4.0]]
    assert session.describe() == f"ipex a fake, not the extension with torch {torch.__version__} on cpu, {precision}"
    session.change_threads(SHARE)
    assert session.max_parallel == 1


def test_other_precisions_are_refused(fake: FakeIpex, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is int8; the ipex backend runs fp32 or bf16"):
        opened(write_model(tmp_path), "int8")


def test_a_gpu_is_not_used(fake: FakeIpex, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_model(tmp_path)
    opened(ModelFiles(files.model_dir, files.serialized_file, files.model_file, gpu_id=1))
    assert "GPU 1 is not used: the ipex backend runs on the CPU" in caplog.text


def test_without_the_extension_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(RuntimeUnavailableError, match=r"is not installed; install ts_handlers\[ipex\]"):
        opened(write_model(tmp_path))


def test_another_torch_is_refused_before_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.0.9")
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(RuntimeUnavailableError, match="1.0.9 needs torch 1.0 and this is torch"):
        ipex.import_ipex()


def test_an_extension_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise NameError(f"something in {name}")

    monkeypatch.setattr(importlib.metadata, "version", lambda _: torch.__version__)
    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(RuntimeUnavailableError, match=r"cannot be imported \(something in .*transformers 4"):
        ipex.import_ipex()
