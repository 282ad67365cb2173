"""Virtual environments made once and kept under the work folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.process import run
from bench.server import clean_env

INSTALL_SECONDS = 1800.0


class Venv:
    """A virtual environment in `folder`. Installing the same things twice does nothing the second time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._stamp = folder / "installed.txt"
        self._log = folder.with_name(f"{folder.name}.log")

    def ensure(self, *installs: Sequence[str]) -> None:
        """Create it, and run one `pip install` for each of `installs`, unless that is what it was made with."""
        wanted = "".join(" ".join(arguments) + "\n" for arguments in installs)
        if self._stamp.is_file() and self._stamp.read_text(encoding="utf-8") == wanted:
            return
        print(f"making the environment {self.folder} (some minutes, once)", flush=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._run(sys.executable, "-m", "venv", "--clear", str(self.folder))
        for arguments in installs:
            print(f"  pip install {' '.join(arguments)}", flush=True)
            self.pip("install", *arguments)
        self._stamp.write_text(wanted, encoding="utf-8")

    def pip(self, *arguments: str) -> None:
        """Run pip in it."""
        self._run(str(self.python), "-m", "pip", "--quiet", *arguments)

    def run(self, *arguments: str | Path, timeout_seconds: float = 300.0) -> str:
        """Run its Python (or, with a first argument that is a Path, a program of it) and return what was printed."""
        if isinstance(arguments[0], Path):
            return self._run(*arguments, timeout_seconds=timeout_seconds)
        return self._run(self.python, *arguments, timeout_seconds=timeout_seconds)

    def _run(self, *command: str | Path, timeout_seconds: float = INSTALL_SECONDS) -> str:
        return run(command, log=self._log, env=clean_env(), cwd=self.folder.parent, timeout_seconds=timeout_seconds)
