from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ts_handlers.operate.configure.allocators import Preloads, advice, find_preloads


def install(root: Path, file: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_libraries_are_found_where_packages_put_them(tmp_path: Path) -> None:
    tcmalloc = install(tmp_path, "usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
    jemalloc = install(tmp_path, "usr/local/lib/libjemalloc.so")
    openmp = install(tmp_path, "venv/lib/libiomp5.so")

    found = find_preloads([1, 0], tmp_path, [tmp_path / "venv/lib"])
    assert found.libraries == {"tcmalloc": tcmalloc, "jemalloc": jemalloc, "iomp5": openmp}
    assert found.nodes == (0, 1)


def test_where_nothing_is_installed_nothing_is_found(tmp_path: Path) -> None:
    assert find_preloads([0], tmp_path, []).libraries == {}


def test_numactl_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not find_preloads([0], tmp_path).has_numactl
    install(tmp_path, "numactl").chmod(0o755)
    assert shutil.which("numactl") == str(tmp_path / "numactl")
    assert find_preloads([0], tmp_path).has_numactl


def test_the_advice_is_a_line_to_copy() -> None:
    preloads = Preloads(
        {"jemalloc": Path("/lib/libjemalloc.so.2"), "iomp5": Path("/lib/libiomp5.so")}, has_numactl=True, nodes=(0, 1)
    )
    text = advice(preloads, "ts-handlers serve store", is_torch=True)

    assert "  LD_PRELOAD=/lib/libjemalloc.so.2 ts-handlers serve store" in text
    assert "  LD_PRELOAD=/lib/libiomp5.so ts-handlers serve store" in text
    assert "  numactl --cpunodebind=0 --membind=0 ts-handlers serve store" in text


def test_what_is_missing_is_said_with_how_to_install_it() -> None:
    text = advice(Preloads({}, has_numactl=False, nodes=(0, 1)), "ts-handlers serve store", is_torch=True)

    assert "apt-get install libtcmalloc-minimal4" in text
    assert "pip install intel-openmp" in text
    assert "apt-get install numactl" in text
    assert "LD_PRELOAD" not in text


def test_onnx_runtime_hears_nothing_of_openmp_and_one_node_nothing_of_numa() -> None:
    text = advice(Preloads({"iomp5": Path("/lib/libiomp5.so")}, has_numactl=True), "serve", is_torch=False)

    assert "OpenMP" not in text
    assert "numactl" not in text
