from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from manifests.kubectl import find_kubectl, render_objects

Objects = dict[tuple[str, str], dict[str, Any]]

DEPLOYMENT = ("Deployment", "torchserve")
SERVICE = ("InferenceService", "torchserve")


def container_of(objects: Objects) -> dict[str, Any]:
    """Return the server's container of the Deployment."""
    containers = objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = next(one for one in containers if one["name"] == "torchserve")
    return found


@pytest.fixture(scope="session")
def rendered() -> Callable[[Path], Objects]:
    """Render a folder once, with the real kustomize; objects by (kind, name)."""
    if find_kubectl() is None:
        pytest.skip("kubectl is not installed; scripts/test brings it")
    return cache(render_objects)
