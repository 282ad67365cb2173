"""Bodies and forms, read by what their headers say of them."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.errors import RequestError
from ts_handlers.requests.headers import Headers
from ts_handlers.requests.payload import Reading, Request, parse_request
from ts_handlers.requests.request import Repeated

JSON = "application/json"
PNG = b"\x89PNG\r\n\x1a\n"
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}


def read(row: dict[str, Any], headers: dict[str, Any], **reading: Any) -> Request:
    return parse_request(row, Headers.of(headers), Reading(**reading))


def typed(name: str, content_type: str) -> dict[str, Any]:
    return {name: {"content-type": content_type}}


def declared(content_type: str, **headers: str) -> dict[str, Any]:
    """Return the headers of a body as TorchServe gives them: the body's own without its charset."""
    return {**typed("body", content_type.partition(";")[0]), "Content-Type": content_type, **headers}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ("Grüße".encode("latin-1"), declared("text/plain; charset=latin-1"), "Grüße"),
        ("Ã¼", declared("text/plain; charset=utf-8"), "Ã¼"),
        ("ü", declared("text/plain; charset=iso-8859-1"), "Ã¼"),  # TorchServe has read two bytes as UTF-8
        ("h\0i\0", declared("text/plain; charset=utf-16le"), "hi"),
        ("Grüße".encode("utf-16"), declared("text/plain; charset=utf-16"), "Grüße"),
        ("Grüße".encode("utf-16"), declared("application/octet-stream; charset=utf-16"), "Grüße"),
        ('{"text": "Grüße"}'.encode("utf-16"), declared("application/json; charset=utf-16"), {"text": "Grüße"}),
        ('{"text": "Grüße"}'.encode("latin-1"), declared("application/json; charset=latin-1"), {"text": "Grüße"}),
        ({"text": "plain"}, declared("application/json; charset=latin-1"), {"text": "plain"}),
        ({"text": "Grüße"}, declared("application/json; charset=utf-8"), {"text": "Grüße"}),
        (b'\xef\xbb\xbf{"text": "x"}', declared("application/json"), {"text": "x"}),
        (b'{"text": "x"}', declared("application/vnd.api+json"), {"text": "x"}),
        ('{"text": "x"}', declared("text/json"), {"text": "x"}),
        ("a JSON string", declared("application/json"), "a JSON string"),
        (gzip.compress(b"a text", mtime=0), declared("text/plain", **{"content-encoding": "gzip"}), "a text"),
        (zlib.compress(b'{"text": "x"}'), declared(JSON, **{"Content-Encoding": "deflate"}), {"text": "x"}),
        (
            gzip.compress("é".encode("latin-1"), mtime=0),
            declared("text/plain; charset=latin1", **{"content-encoding": "gzip"}),
            "é",
        ),
        ("a text", declared("text/plain", **{"content-encoding": "identity"}), "a text"),
    ],
)
def test_a_body_is_read_as_it_is_declared(body: Any, headers: dict[str, Any], expected: Any) -> None:
    assert read({"body": body}, headers) == Request((expected,))


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"a", declared("text/plain; charset=x"), 415, "unsupported_charset"),
        ("a", declared("text/plain; charset=x"), 415, "unsupported_charset"),
        ({"text": "a"}, declared("application/json; charset=x"), 415, "unsupported_charset"),
        ({"text": "ü"}, declared("application/json; charset=latin-1"), 415, "unsupported_charset"),
        ({"text": "~{<:Ky~}"}, declared("application/json; charset=hz"), 415, "unsupported_charset"),
        (b"\x93NUMPY", declared("application/x-npy"), 415, "unsupported_media_type"),
        (b"%PDF", declared("application/pdf"), 415, "unsupported_media_type"),
        (b"a", declared("image/png"), 415, "unsupported_media_type"),
        (b'{"text": "a"}\n{"text": "b"}', declared("application/jsonlines"), 415, "unsupported_media_type"),
        (b'{"text": "a"}\n{"text": "b"}', {}, 400, "invalid_json"),
        (b'{"text": "a', {}, 400, "invalid_json"),
        (b'[ "a", ', {}, 400, "invalid_json"),
        ({"text": "a"}, declared(JSON, **{"content-encoding": "gzip"}), 400, "invalid_encoding"),
        (
            gzip.compress(bytes(10**7), mtime=0),
            declared("text/plain", **{"content-encoding": "gzip"}),
            413,
            "payload_too_large",
        ),
    ],
)
def test_a_body_that_is_not_as_declared(body: Any, headers: dict[str, Any], status: int, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read({"body": body}, headers)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("row", "headers", "expected"),
    [
        ({"text": b"a"}, MULTIPART, {"text": "a"}),
        ({"text": b"a", "model_name": b"m"}, MULTIPART, {"text": "a"}),
        ({"model_name": b"m", "body": "a"}, declared("text/plain"), "a"),
        ({"other": b"m", "body": "a"}, declared("text/plain"), "a"),  # parameters of the URL
        ({"data": "a"}, {**MULTIPART, **typed("data", "text/plain")}, "a"),
        ({"data": {"text": "a"}}, {**MULTIPART, **typed("data", JSON)}, {"text": "a"}),
        ({"data": b"a", "text_pair": b"b"}, MULTIPART, {"data": "a", "text_pair": "b"}),
    ],
)
def test_forms_of_texts(row: dict[str, Any], headers: dict[str, Any], expected: Any) -> None:
    assert read(row, headers) == Request((expected,))


@pytest.mark.parametrize(
    ("row", "headers", "status", "code"),
    [
        ({"text": Repeated((b"a", b"b"))}, MULTIPART, 400, "repeated_field"),
        ({"data": Repeated((b"a", b"b"))}, MULTIPART, 400, "repeated_field"),
        ({"a text": b""}, URLENCODED, 400, "invalid_type"),
        (
            {"text": b"a"},
            {"content-type": "application/x-www-form-urlencoded; charset=latin-1"},
            415,
            "unsupported_charset",
        ),
        ({"text": b"\xff"}, MULTIPART, 400, "invalid_utf8"),
    ],
)
def test_forms_that_cannot_be_read(row: dict[str, Any], headers: dict[str, Any], status: int, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(row, headers)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("row", "headers", "expected"),
    [
        ({"one": PNG}, {**MULTIPART, **typed("one", "image/png")}, [PNG]),
        ({"one": PNG, "who": b"me"}, {**MULTIPART, **typed("one", "image/png"), **typed("who", "")}, [PNG]),
        ({"one": Repeated((bytearray(PNG), b"x"))}, {**MULTIPART, **typed("one", "image/png")}, [PNG, b"x"]),
        ({"one": b"eA=="}, {**MULTIPART, **typed("one", "")}, [b"eA=="]),
        ({"one": b"e A="}, {**URLENCODED, **typed("one", "")}, [b"e+A="]),
        (
            {"one": PNG, "mask": b"rle"},
            {**MULTIPART, **typed("one", "x/y"), **typed("mask", "")},
            [{"image": PNG, "mask": "rle"}],
        ),
        ({"one": b"eA==", "mask": b"rle"}, MULTIPART, [{"image": b"eA==", "mask": "rle"}]),
        ({"mask": b"rle", "body": PNG}, declared("image/png"), [{"image": PNG, "mask": "rle"}]),
        ({"model_name": b"m", "body": PNG}, {}, [PNG]),
        ({"body": PNG}, declared("text/plain"), [PNG]),
        ({"body": PNG}, declared("image/png; charset=binary"), [PNG]),
        ({"body": "eA==".encode("utf-16")}, declared("text/plain; charset=utf-16"), ["eA=="]),
        ({"body": gzip.compress(PNG, mtime=0)}, declared("image/png", **{"content-encoding": "gzip"}), [PNG]),
    ],
)
def test_forms_and_files_of_images(row: dict[str, Any], headers: dict[str, Any], expected: list[Any]) -> None:
    request = read(row, headers, instance_type="image", options=("mask",))
    assert request == Request(tuple(expected), is_many=len(expected) > 1)


IN_URL = {"Host": "h"}
"""Of a request to /invocations, /models/NAME/invoke or /NAME/predict: there is neither `explain` nor `url_path`."""


@pytest.mark.parametrize(
    ("row", "headers", "expected"),
    [
        ({"model_name": b"m", "trace": b"1", "body": PNG}, typed("body", ""), [PNG]),
        ({"trace": b"1", "body": PNG}, typed("body", ""), [PNG]),
        ({"trace": b"1", "mask": b"rle", "body": PNG}, typed("body", ""), [{"image": PNG, "mask": "rle"}]),
        ({"trace": b"1", "body": PNG}, declared("image/png"), [PNG]),
        ({"trace": b"1", "image": b"eA=="}, URLENCODED, [b"eA=="]),
        ({"trace": b"1", "mask": b"rle", "b64": b"eA=="}, MULTIPART, [{"image": b"eA==", "mask": "rle"}]),
        ({"trace": b"1", "image": b"eA==", "other": b"eQ=="}, URLENCODED, [b"eA==", b"eQ=="]),
        ({"one": b"eA==", "other": b"eQ=="}, URLENCODED, [b"eA==", b"eQ=="]),
    ],
)
def test_parameters_of_the_url_are_no_images(row: dict[str, Any], headers: dict[str, Any], expected: list[Any]) -> None:
    """As a TorchServe 0.12 hands them over: before the body, or before a form's fields, as if they were such."""
    request = read(row, {**headers, **IN_URL}, instance_type="image", options=("mask",))
    assert request == Request(tuple(expected), is_many=len(expected) > 1)


def test_an_option_beside_several_images_is_refused() -> None:
    with pytest.raises(RequestError, match="mask stands beside several images, or JSON"):
        read({"mask": b"rle", "body": {"image": "x"}}, declared(JSON), instance_type="image", options=("mask",))


@given(
    st.dictionaries(
        st.sampled_from(["body", "data", "text", "mask", "model_name"]),
        st.binary(max_size=9) | st.text(max_size=9) | st.builds(Repeated, st.lists(st.binary(max_size=3), min_size=2)),
    ),
    st.sampled_from(
        [{}, MULTIPART, URLENCODED, declared("text/plain; charset=utf-16"), declared(JSON), declared("image/png")]
    ),
    st.sampled_from([{}, {"content-encoding": "gzip"}, {"inference-header-content-length": "3"}]),
    st.sampled_from(["text", "image"]),
)
def test_any_row_is_understood_or_refused(
    row: dict[str, Any], headers: dict[str, Any], more: dict[str, str], instance_type: str
) -> None:
    try:
        assert read(row, {**headers, **more}, instance_type=instance_type, options=("mask",)).instances
    except RequestError as error:
        assert error.status in (400, 413, 415)
