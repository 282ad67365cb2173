"""A stand-in for torch, for real servers whose handlers need none of it."""

from __future__ import annotations

import os
from pathlib import Path


def torch_stand_in(folder: Path) -> str:
    """Write a `torch` with the one name that TorchServe's worker asks for; return the PYTHONPATH that finds it first.

    The worker imports torch whatever its handler does, which takes 3 s of CPU: most of what a server's start takes.
    """
    folder.mkdir(exist_ok=True)
    (folder / "torch.py").write_text("class Tensor: ...\n", encoding="utf-8")
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
