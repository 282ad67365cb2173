from __future__ import annotations

from typing import Any

import pytest

from ts_handlers.requests.headers import Headers, guess_protocol
from ts_handlers.requests.request import Protocol

ON_PREDICTIONS = {"explain": "False", "url_path": ""}
ON_KSERVE = {"explain": "False"}


def part(content_type: str = "", name: str = "body") -> dict[str, Any]:
    return {name: {"content-type": content_type}}


@pytest.mark.parametrize(
    ("headers", "media_type", "charset"),
    [
        ({}, None, None),
        (part(), None, None),
        (part("text/plain"), "text/plain", None),
        (part("Text/Plain"), "text/plain", None),
        ({**part("text/plain"), "content-type": "text/plain; charset=latin-1"}, "text/plain", "latin-1"),
        ({**part("text/plain"), "Content-Type": 'text/plain;format=flowed; Charset="UTF-16"'}, "text/plain", "utf-16"),
        ({**part("text/plain"), "CONTENT-TYPE": "text/plain;charset='utf8'"}, "text/plain", "utf8"),
        ({"body": "a header of that name", "content-type": "text/plain; charset=x"}, "text/plain", "x"),
        ({"content-type": "multipart/form-data; boundary=x", **part("image/png")}, "multipart/form-data", None),
    ],
)
def test_type_and_charset(headers: dict[str, Any], media_type: str | None, charset: str | None) -> None:
    found = Headers.of(headers)
    assert (found.media_type, found.charset) == (media_type, charset)


def test_encoding_and_head_length() -> None:
    found = Headers.of({"Content-Encoding": " GZIP ", "inference-HEADER-content-length": "12"})
    assert (found.content_encoding, found.head_length) == ("gzip", "12")


def test_files_and_fields_of_a_form() -> None:
    headers = {"content-type": "multipart/form-data", **part("image/png", "photo"), **part("", "name")}
    found = Headers.of(headers)
    assert found.is_form
    assert found.parts == {"photo": "image/png", "name": ""}


@pytest.mark.parametrize(
    ("row", "headers", "expected"),
    [
        ({"body": b"{"}, ON_PREDICTIONS, Protocol.PLAIN),
        ({"body": b"{"}, ON_KSERVE, Protocol.KSERVE_V2),
        ({"body": b"\xff"}, ON_KSERVE, Protocol.KSERVE_V2),
        ({}, ON_KSERVE, Protocol.KSERVE_V2),
        ({"body": b'{"instances": ['}, ON_KSERVE, Protocol.KSERVE_V1),
        ({"body": {"instances": 7}}, {}, Protocol.KSERVE_V1),
        ({"body": {"inputs": 7}}, {}, Protocol.KSERVE_V2),
        ({"body": b' {"inputs": ['}, ON_PREDICTIONS, Protocol.KSERVE_V2),
        ({"body": b'a text with "inputs"'}, ON_PREDICTIONS, Protocol.PLAIN),
        ({"body": b"x"}, {"inference-header-content-length": "7"}, Protocol.KSERVE_V2),
        ({"body": {"text": 7}}, {}, Protocol.PLAIN),
        ({"body": "x"}, {}, Protocol.PLAIN),
    ],
)
def test_the_form_that_a_request_was_meant_to_have(
    row: dict[str, Any], headers: dict[str, Any], expected: Protocol
) -> None:
    assert guess_protocol(row, Headers.of(headers)) is expected
