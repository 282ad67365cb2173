from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.optional import import_optional, not_imported


def test_a_package_that_is_there_is_imported() -> None:
    assert import_optional("json.decoder", "JSON is read with json", extra="operate") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["nowhere_to_be_found", "nowhere_to_be_found.deep"])
def test_one_that_is_not_is_named_with_what_it_is_for_and_what_brings_it(module: str) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        import_optional(module, "maps are drawn with it", extra="maps")
    assert str(caught.value) == (
        "maps are drawn with it, which cannot be imported (No module named 'nowhere_to_be_found'): "
        "pip install 'ts_handlers[maps]'"
    )


def test_a_module_that_is_not_to_be_imported_looks_missing_for_a_while() -> None:
    name = "wave"
    sys.modules.pop(name, None)
    with not_imported(name), pytest.raises(ImportError):
        importlib.import_module(name)
    module = importlib.import_module(name)
    with not_imported(name):  # what is there already stays
        assert importlib.import_module(name) is module


def test_torchserve_does_not_import_what_it_would_not_use() -> None:
    code = "import sys, ts_handlers.handler; print('openvino.torch' in sys.modules, 'torch._dynamo' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-2:] == ["False", "False"]
