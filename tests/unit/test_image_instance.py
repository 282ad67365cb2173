from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from ts_handlers.errors import RequestError
from ts_handlers.image_instance import decode_base64, read_instance

CONTENT = bytes(range(256))
BASE64 = base64.b64encode(CONTENT).decode()


def read(instance: Any, **settings: Any) -> Any:
    return read_instance(instance, **{"max_bytes": 1000, **settings})


@pytest.mark.parametrize(
    "instance",
    [
        CONTENT,
        bytearray(CONTENT),
        BASE64,
        f"data:image/png;base64,{BASE64}",
        base64.encodebytes(CONTENT).decode(),
        {"image": BASE64},
        {"b64": BASE64},
        {"data": BASE64},
        {"image": {"b64": BASE64}},
        {"image_bytes": {"b64": BASE64}},
    ],
)
def test_files(instance: Any) -> None:
    found = read(instance)
    assert (found.content, found.array, found.options) == (CONTENT, None, {})


@pytest.mark.parametrize(("numbers", "kind"), [([[[1, 2, 3]]], "i"), ([[[1, 0.5, 3]]], "f")])
def test_numbers(numbers: Any, kind: str) -> None:
    for instance in (numbers, np.asarray(numbers), {"image": numbers}):
        found = read(instance)
        assert found.content is None
        assert found.array.dtype.kind == kind
        assert found.array.shape == (1, 1, 3)


def test_options() -> None:
    assert read({"image": BASE64, "mask": "rle"}, options=("mask",)).options == {"mask": "rle"}
    with pytest.raises(RequestError, match="unknown keys 'mask'"):
        read({"image": BASE64, "mask": "rle"})


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        (None, "invalid_type"),
        (7, "invalid_type"),
        (True, "invalid_type"),
        ({}, "invalid_type"),
        ({"img": BASE64}, "invalid_type"),
        ({"image": BASE64, "b64": BASE64}, "invalid_type"),
        ({"image": {"b64": 7}}, "invalid_type"),
        ({"image": None}, "invalid_type"),
        ({"\ud800": BASE64}, "invalid_type"),
        ([], "invalid_type"),
        ([["a"]], "invalid_type"),
        ([[True]], "invalid_type"),
        ([10**30], "invalid_type"),
        ([[1], [1, 2]], "invalid_shape"),
        ([[[1.5, float("nan"), 0]]], "invalid_pixels"),
        ("not base64!", "invalid_base64"),
        ("abc", "invalid_base64"),
        ("Grüße", "invalid_base64"),
    ],
)
def test_what_is_no_image(instance: Any, code: str) -> None:
    with pytest.raises(RequestError, match="send") as caught:
        read(instance)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_base64_is_measured_before_it_is_decoded() -> None:
    with pytest.raises(RequestError, match="about 4002 bytes; this model takes 1000") as caught:
        decode_base64("A" * 5336, 1000)
    assert (caught.value.status, caught.value.code) == (413, "image_too_large")
    assert len(decode_base64(base64.encodebytes(bytes(1000)).decode(), 1000)) == 1000
