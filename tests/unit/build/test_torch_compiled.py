"""Packages of compiled code: one tiny model is compiled for all tests here."""

from __future__ import annotations

import platform
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.unit.build.materials import material
from ts_handlers.build.compile import copy_model, export_model, inductor
from ts_handlers.build.methods import torch_compiled
from ts_handlers.build.target import TARGETS
from ts_handlers.config import RuntimeConfig
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.runtime import ModelFiles, Session, open_session, torch_package

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

KIND = "tiny-distilbert"
SHARE = cpu_share(CpuBudget((0,)), 1)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def package(model_dirs: ModelDirs) -> Path:
    """The unpacked archive of a compiled model."""
    return model_dirs.get(KIND, backend="torch", form="compiled")


def opened(folder: Path) -> Session:
    return open_session(RuntimeConfig(backend="torch"), ModelFiles(folder, "model.pt2"), SHARE)


def ids(size: int, length: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(size * 100 + length).integers(5, 300, (size, length))
    mask = np.ones_like(values)
    mask[-1, length // 2 + 1 :] = 0
    return {"input_ids": values, "attention_mask": mask}


@slow
@needs_compiler
@pytest.mark.parametrize("shape", [(1, 2), (1, 128), (3, 7), (9, 64)])
def test_any_batch_and_length_answers_as_eager_torch_does(
    shape: tuple[int, int], package: Path, model_dirs: ModelDirs
) -> None:
    folder = model_dirs.get(KIND, backend="torch")
    eager = open_session(RuntimeConfig(backend="torch"), ModelFiles(folder, "model.safetensors"), SHARE)
    arrays = ids(*shape)
    actual, expected = opened(package).run(arrays), eager.run(arrays)
    np.testing.assert_allclose(actual["logits"], expected["logits"], rtol=1e-4, atol=1e-4)


@slow
@needs_compiler
def test_the_package_says_what_it_is(package: Path) -> None:
    assert opened(package).describe() == f"torch {torch.__version__} on cpu, fp32, compiled ahead of time"


@slow
@needs_compiler
def test_a_cpu_without_the_instructions_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch_package.read_flags()
    monkeypatch.setattr(torch_package, "read_flags", lambda: here - {"avx2", "popcnt"})
    with pytest.raises(ConfigError, match=r"model.pt2 was compiled for a CPU with popcnt.*--target-cpu"):
        opened(package)


@slow
@needs_compiler
def test_the_threads_of_the_build_are_not_the_workers(package: Path) -> None:
    with zipfile.ZipFile(package / "model.pt2") as archive:
        code = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp"))
    assert "omp parallel" in code
    assert not re.search(r"num_threads\(\d", code)


@slow
@needs_compiler
def test_an_isa_that_inductor_did_not_take_is_an_error(package: Path) -> None:
    with pytest.raises(OperatorError, match="compiled for .* and was asked for NEON"):
        inductor._check_isa(package / "model.pt2", "neon")


def test_without_a_compiler_nothing_is_begun(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    given = material(model_dirs, KIND, tmp_path)
    with pytest.raises(OperatorError, match="no-such-compiler is not found; install g.. in the build image"):
        torch_compiled.make(given, tmp_path, precision="fp32")


def test_bf16_is_not_compiled_for_a_cpu_that_has_none(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_compiled, "check_compiler", lambda: None)
    given = material(model_dirs, KIND, tmp_path, TARGETS["vnni"])
    with pytest.raises(OperatorError, match="vnni does not multiply bf16, .*; build fp32, or bf16 with --form eager"):
        torch_compiled.make(given, tmp_path, precision="bf16")


def test_what_cannot_be_compiled_is_said_in_one_line(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel\nand a long report")

    monkeypatch.setattr(inductor, "check_compiler", lambda: None)
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    source = material(model_dirs, KIND, tmp_path).source
    program = export_model(source, copy_model(source))
    here = TARGETS["sse4" if platform.machine() == "x86_64" else "neon"]
    with pytest.raises(
        OperatorError, match="torch cannot compile the model: no such kernel; build it with --form eager"
    ):
        inductor.compile_package(program, tmp_path / "model.pt2", here, tmp_path)


def test_what_cannot_be_exported_is_said_in_one_line(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = material(model_dirs, KIND, tmp_path).source

    class Branching(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> Any:
            return {"logits": input_ids if input_ids.sum() > 3 else input_ids + 1}

    with pytest.raises(OperatorError, match="torch.export cannot export DistilBert.*--form eager"):
        export_model(source, Branching())


def test_a_tokenizer_without_special_tokens_is_refused(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = material(model_dirs, KIND, tmp_path).source
    monkeypatch.setattr(type(source.tokenizer), "num_special_tokens_to_add", lambda _: 1)
    with pytest.raises(OperatorError, match="makes sequences of one token, and models are compiled for 2 and more"):
        export_model(source, copy_model(source))


def test_the_source_keeps_its_attention(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = material(model_dirs, KIND, tmp_path).source
    assert copy_model(source).config._attn_implementation == "sdpa"
    assert source.model.config._attn_implementation == "eager"


def test_the_compilers_files_go_where_they_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with inductor._cache_in(tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    with inductor._cache_in(tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"
