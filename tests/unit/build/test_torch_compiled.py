"""Packages of compiled code: one tiny model is compiled for all tests here."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.unit.build.materials import material
from ts_handlers.build import compile as module
from ts_handlers.build.compile import EXAMPLES, copy_model, export_model, instructions, tokenized
from ts_handlers.build.methods import torch_compiled
from ts_handlers.build.methods.catalogue import find_method, missing_packages
from ts_handlers.build.target import NATIVE, TARGETS, target_cpu
from ts_handlers.config.sections import RuntimeConfig
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.machine import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session
from ts_handlers.runtime.torch import package as torch_package

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
@pytest.mark.skipif("avx2" not in torch_package.read_flags(), reason="this CPU has no AVX2")
@pytest.mark.parametrize(("target", "isa"), [("avx2", "AVX2"), ("sse4", "INVALID_VEC_ISA")])
def test_code_for_an_older_cpu_has_its_vectors(target: str, isa: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    engine = torch_compiled.make(material(model_dirs, KIND, tmp_path, TARGETS[target]), tmp_path, precision="fp32")
    assert torch_package.read_metadata(engine.serialized_file)["AOTI_CPU_ISA"] == isa
    assert set(engine.details["compiled"]["cpu_flags"]).isdisjoint({"avx512f", "avx512_vnni", "amx_tile"})


def test_without_a_compiler_nothing_is_begun(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    given = material(model_dirs, KIND, tmp_path, target_cpu(NATIVE))
    with pytest.raises(OperatorError, match="no-such-compiler is not found; install g.. in the build image"):
        torch_compiled.make(given, tmp_path, precision="fp32")


def test_bf16_is_not_compiled_for_a_cpu_that_has_none(model_dirs: ModelDirs, tmp_path: Path) -> None:
    given = material(model_dirs, KIND, tmp_path, TARGETS["vnni"])
    with pytest.raises(OperatorError, match="vnni does not multiply bf16, .*; build fp32, or bf16 with --form eager"):
        torch_compiled.make(given, tmp_path, precision="bf16")


def test_what_cannot_be_compiled_is_said_in_one_line(
    model_dirs: ModelDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel\nand a long report")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    source = material(model_dirs, KIND, tmp_path).source
    program = export_model(source, copy_model(source))
    with pytest.raises(
        OperatorError, match="torch cannot compile the model: no such kernel; build it with --form eager"
    ):
        module.compile_package(program, tmp_path / "model.pt2", target_cpu(NATIVE), tmp_path)


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


V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}


GENOA = frozenset(V4 | {"avx512_vnni", "avx512_bf16", "avx_vnni"})


@pytest.mark.parametrize(
    ("target", "here", "march", "width", "needed"),
    [
        ("avx512-bf16", GENOA, "x86-64-v4", None, V4 | {"avx512_vnni"}),
        ("amx", GENOA, "x86-64-v4", None, V4 | {"avx512_vnni"}),
        ("avx512", GENOA, "x86-64-v3", 256, V3),
        ("avx2", GENOA, "x86-64-v3", 256, V3),
        ("sse4", GENOA, "x86-64-v2", 1, V2),
        ("amx", V3 | {"avx_vnni"}, "x86-64-v3", 256, V3),
    ],
)
def test_code_uses_what_both_cpus_have_and_says_what(
    target: str, here: set[str], march: str, width: int | None, needed: set[str]
) -> None:
    *found, flags = instructions(TARGETS[target], "x86_64", frozenset(here), is_here=target == "avx512-bf16")
    assert (*found, set(flags)) == (march, width, needed)


def test_code_is_never_made_for_another_architecture() -> None:
    with pytest.raises(OperatorError, match="--target-cpu neon: code is compiled for .* the building machine, x86_64"):
        instructions(TARGETS["neon"], "x86_64", GENOA, is_here=False)
    with pytest.raises(OperatorError, match="--target-cpu avx2: .* aarch64"):
        instructions(TARGETS["avx2"], "aarch64", frozenset({"asimd"}), is_here=False)


def test_on_arm_the_code_is_for_this_machine() -> None:
    flags = frozenset({"asimddp", "asimd"})
    assert instructions(TARGETS["neon-dotprod"], "aarch64", flags, is_here=True) == (None, None, ("asimd", "asimddp"))


def test_a_cpu_that_is_too_old() -> None:
    with pytest.raises(OperatorError, match="this CPU lacks cx16, .*; build with --form eager"):
        instructions(TARGETS["sse4"], "x86_64", frozenset({"ssse3"}), is_here=True)


@pytest.mark.parametrize("quantizer", ["torchao", "inc"])
def test_int8_is_refused_without_vnni(quantizer: str, model_dirs: ModelDirs, tmp_path: Path) -> None:
    given = material(model_dirs, KIND, tmp_path, TARGETS["avx2"], num_samples=6)
    with pytest.raises(OperatorError, match="sums of their products saturate on avx2, which has no VNNI"):
        find_method("torch", "int8", quantizer).make(given, tmp_path)


def test_linear_layers_are_wrapped_but_the_pooler_and_the_head(model_dirs: ModelDirs, tmp_path: Path) -> None:
    source = material(model_dirs, "tiny-mpnet", tmp_path).source
    model = copy_model(source)
    expected = model(**tokenized(source, EXAMPLES))
    assert torch_compiled.flatten_linear(model.base_model) == 12
    assert isinstance(model.pooler.dense, torch.nn.Linear)
    actual = model(**tokenized(source, EXAMPLES))
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)


@slow
@needs_compiler
@pytest.mark.skipif(not target_cpu(NATIVE).has_vnni, reason="this CPU has no VNNI")
@pytest.mark.parametrize("quantizer", ["torchao", "inc"])
@pytest.mark.filterwarnings("ignore")
def test_int8_is_near_fp32_and_not_fp32(quantizer: str, model_dirs: ModelDirs) -> None:
    method = find_method("torch", "int8", quantizer)
    if missing := missing_packages(method):
        pytest.skip(f"{', '.join(missing)} is not installed")
    folder = model_dirs.get(KIND, backend="torch", precision="int8", quantizer=quantizer, form="compiled")
    fp32 = model_dirs.get(KIND, backend="torch")
    int8 = open_session(RuntimeConfig(backend="torch", precision="int8"), ModelFiles(folder, "model.pt2"), SHARE)
    eager = open_session(RuntimeConfig(backend="torch"), ModelFiles(fp32, "model.safetensors"), SHARE)
    ids = np.random.default_rng(3).integers(5, 300, (5, 19))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    actual, expected = int8.run(arrays)["logits"], eager.run(arrays)["logits"]
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.3
    alone = int8.run({name: array[:1] for name, array in arrays.items()})["logits"]
    assert np.linalg.norm(alone - expected[:1]) / np.linalg.norm(expected[:1]) < 0.5
