from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ts_handlers.hosts.torchserve.served import ServedModel
from ts_handlers.testing import FakeContext

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("manifest", [{}, {"model": {}}, {"model": {"modelName": "archived"}}])
def test_a_model_has_the_name_it_is_registered_under(manifest: dict[str, Any], tmp_path: Path) -> None:
    """TorchServe registers an archive under another name than its own where model_name of a request says so."""
    assert ServedModel.of(FakeContext(tmp_path, manifest=manifest, model_name="registered")).name == "registered"
