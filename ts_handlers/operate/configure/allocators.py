"""Libraries that are preloaded, and numactl: which of them this machine has, and the line that uses them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Library = Literal["tcmalloc", "jemalloc", "iomp5"]

FILE_NAMES: Mapping[Library, tuple[str, ...]] = {
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc.so", "libtcmalloc_minimal.so"),
    "jemalloc": ("libjemalloc.so.2", "libjemalloc.so"),
    "iomp5": ("libiomp5.so",),
}
"""Under which names each is installed, the one a package without headers brings first."""

_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib64",
    "usr/local/lib",
    "opt/conda/lib",
)


@dataclass(frozen=True, slots=True)
class Preloads:
    """What is installed here.

    Attributes:
        libraries: File of each library that was found.
        has_numactl: Whether the command `numactl` is on PATH.
        nodes: NUMA nodes of the CPUs this process may use.
    """

    libraries: Mapping[Library, Path]
    has_numactl: bool
    nodes: tuple[int, ...] = (0,)


def find_preloads(nodes: Collection[int], root: Path = Path("/"), extra: Iterable[Path] | None = None) -> Preloads:
    """Look in the usual folders.

    Args:
        nodes: NUMA nodes of the CPUs this process may use.
        root: Where the folders are; a fixture's folder in tests.
        extra: More folders; by default this Python's own `lib`, where pip puts libiomp5.
    """
    extra = [Path(sys.prefix) / "lib"] if extra is None else extra
    folders = [*(root / folder for folder in _FOLDERS), *extra]
    libraries: dict[Library, Path] = {}
    for library, names in FILE_NAMES.items():
        found = [folder / name for folder in folders for name in names if (folder / name).is_file()]
        if found:
            libraries[library] = found[0]
    return Preloads(libraries, shutil.which("numactl") is not None, tuple(sorted(nodes)))


def advice(preloads: Preloads, serve: str, *, is_torch: bool) -> str:
    """Return what to write beside the launcher's setting, one thing a line.

    Args:
        preloads: What is installed here.
        serve: The command that starts the server.
        is_torch: Whether a model runs on torch, whose OpenMP can be another one.
    """
    return "\n".join(
        [*_allocator(preloads, serve), *_openmp(preloads, serve, is_torch=is_torch), *_numa(preloads, serve)]
    )


def _allocator(preloads: Preloads, serve: str) -> list[str]:
    file = preloads.libraries.get("tcmalloc") or preloads.libraries.get("jemalloc")
    if file is None:
        return [
            "An allocator that keeps freed memory can shorten inference a little; none is installed here:",
            "  apt-get install libtcmalloc-minimal4 (or libjemalloc2), then configure again.",
        ]
    return [
        "This allocator keeps freed memory for the next batch instead of giving it back. Measure with it:",
        f"  LD_PRELOAD={file} {serve}",
    ]


def _openmp(preloads: Preloads, serve: str, *, is_torch: bool) -> list[str]:
    if not is_torch:  # ONNX Runtime has a thread pool of its own
        return []
    file = preloads.libraries.get("iomp5")
    if file is None:
        return ["torch can run on Intel's OpenMP, on Intel CPUs sometimes faster: pip install intel-openmp."]
    return ["torch can run on Intel's OpenMP, on Intel CPUs sometimes faster:", f"  LD_PRELOAD={file} {serve}"]


def _numa(preloads: Preloads, serve: str) -> list[str]:
    if len(preloads.nodes) < 2:
        return []
    node = preloads.nodes[0]
    why = f"There are {len(preloads.nodes)} NUMA nodes: a server on one of them never waits for another node's memory;"
    if not preloads.has_numactl:
        return [why, "  one server for each, with numactl: apt-get install numactl, then configure again."]
    return [
        f"{why} one server for each:",
        f"  numactl --cpunodebind={node} --membind={node} {serve}",
    ]
