from __future__ import annotations

import sys

import pytest

from ts_handlers.errors import RuntimeUnavailableError
from ts_handlers.optional import import_optional


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
