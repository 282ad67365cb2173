from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from ts_handlers.errors import RequestError
from ts_handlers.requests.image_instance import decode_base64, read_instance

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
        f"DATA:image/png;BASE64,{BASE64}",
        f"data:;base64,{quote(BASE64)}",
        f"data:image/png;charset=utf-8;base64,{BASE64}".encode(),
        BASE64.rstrip("="),
        BASE64.replace("+", "-").replace("/", "_"),
        BASE64.replace("+", "-").replace("/", "_").rstrip("="),
        f" {BASE64[:80]}\r\n  {BASE64[80:]} ",
        BASE64.encode(),
        base64.encodebytes(CONTENT),
        {"image": BASE64.encode()},
        {"image_bytes": {"b64": BASE64}, "key": "1"},
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
        ("abcde", "invalid_base64"),
        (b"abcdefghijklmnopq" * 4 + b"!", "invalid_base64"),
        (BASE64[:40] + " " + BASE64[41:], "invalid_base64"),
        ("data:image/svg+xml,%3Csvg%3E", "invalid_base64"),
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


@pytest.mark.parametrize("size", [*range(12), 40])
def test_base64_of_any_length_is_read_without_its_padding(size: int) -> None:
    content = CONTENT[-size:] if size else b""
    for text in (base64.b64encode(content), base64.urlsafe_b64encode(content)):
        assert decode_base64(text.decode().rstrip("="), 100) == content


@pytest.mark.parametrize(
    "start",
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01\x00", b"BM\x46\x00\x00\x00", b"II*\x00", b"RIFF\x24\x00"],
)
def test_files_are_not_taken_for_base64(start: bytes) -> None:
    assert read(start + b"A" * 100).content == start + b"A" * 100


def test_base64_in_a_form_is_measured_as_well() -> None:
    with pytest.raises(RequestError, match="this model takes 1000") as caught:
        read(b"A" * 5336)
    assert caught.value.status == 413
