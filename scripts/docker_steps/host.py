"""What pip needs of this machine to be of use in a root: its settings, proxies, certificates and names, handed through."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from docker_steps.steps import Engine

_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def make_engine(base: Path, work_dir: Path, build_args: Mapping[str, str]) -> Engine:
    """Return an engine that reaches what this machine reaches; the folders of packages its pip names are seen, too."""
    work_dir.mkdir(parents=True, exist_ok=True)
    env = {name: os.environ[name] for name in _PROXIES if name in os.environ} | _pip_settings()
    paths = [*(Path(name) for name in _FILES), *_named_paths(env.values())]
    return Engine(base, work_dir, build_args, env, {str(path): path.resolve() for path in paths if path.exists()})


def _pip_settings() -> dict[str, str]:
    """Return what `pip config list` says as environment variables of pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", ":env:"):
            settings[f"PIP_{name.replace('-', '_').upper()}"] = " ".join(shlex.split(value))
    return settings


def _named_paths(values: Iterable[str]) -> Iterator[Path]:
    """Find absolute paths and file URLs among settings; of an index its parent, because its links lead beside it."""
    for value in values:
        for word in value.split():
            if word.startswith("file://"):
                yield Path(urlsplit(word).path).parent
            elif word.startswith("/"):
                yield Path(word)
