"""KServe v2's binary tensors, and what a request may say of tensors and outputs."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.errors import RequestError
from ts_handlers.requests.headers import Headers
from ts_handlers.requests.payload import Protocol, Reading, Request, parse_request


def elements(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def head_of(raw: bytes, datatype: str, shape: list[int], name: str = "x", **extra: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw), **extra}}


def send(head: Any, raw: bytes = b"", *, length: str | None = None, **reading: Any) -> Request:
    text = json.dumps(head).encode()
    headers = Headers(head_length=str(len(text)) if length is None else length)
    return parse_request({"body": bytearray(text + raw)}, headers, Reading(**reading))


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"),
    [
        ("BOOL", b"\x00\x01\x02", [False, True, True]),
        ("UINT8", b"\x00\x7f\xff", [0, 127, 255]),
        ("INT8", b"\x00\x7f\xff", [0, 127, -1]),
        ("UINT16", b"\x01\x00\xff\xff", [1, 65535]),
        ("INT16", b"\x01\x00\xff\xff", [1, -1]),
        ("UINT32", b"\x01\x02\x00\x00", [513]),
        ("INT32", b"\xfe\xff\xff\xff", [-2]),
        ("UINT64", b"\xff" * 8, [2**64 - 1]),
        ("INT64", b"\xff" * 8, [-1]),
        ("FP16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        ("BF16", b"\x80\x3f\x00\xc0", [1.0, -2.0]),
        ("FP32", b"\x00\x00\x80\x3f\x00\x00\x00\xbf", [1.0, -0.5]),
        ("FP64", b"\x00\x00\x00\x00\x00\x00\xf0\x3f", [1.0]),
    ],
)
def test_numbers(datatype: str, raw: bytes, expected: list[float]) -> None:
    request = send({"inputs": [head_of(raw, datatype, [1, len(expected)])]}, raw)
    assert [instance.tolist() for instance in request.instances] == [expected]


def test_texts_of_one_tensor_and_of_several() -> None:
    raw, other = elements("Grüße".encode(), b"", b"{}"), elements(b"1", b"2", b"3")
    one = send({"id": "7", "inputs": [head_of(raw, "BYTES", [3, 1])]}, raw)
    assert one == Request(("Grüße", "", "{}"), Protocol.KSERVE_V2, True, "7")
    mixed = {"name": "n", "shape": [3], "datatype": "BYTES", "data": ["a", "b", "c"]}
    both = send({"inputs": [head_of(raw, "BYTES", [3], "q"), mixed, head_of(other, "BYTES", [-1], "c")]}, raw + other)
    assert both.instances[0] == {"q": "Grüße", "n": "a", "c": "1"}
    assert both.instances[2] == {"q": "{}", "n": "c", "c": "3"}


def test_files_stay_bytes_where_instances_are_images() -> None:
    raw = elements(b"\x89PNG", b"\xff\xd8")
    request = send({"inputs": [head_of(raw, "BYTES", [2])]}, raw, instance_type="image")
    assert request.instances == (b"\x89PNG", b"\xff\xd8")


def test_a_body_of_nothing_but_the_one_element() -> None:
    row, headers = {"body": b"a text"}, Headers(head_length="0")
    assert parse_request(row, headers) == Request(("a text",), Protocol.KSERVE_V2, is_many=True)
    assert parse_request(row, headers, Reading("image")).instances == (b"a text",)


def test_json_tensors_with_a_head_length() -> None:
    tensor = {"name": "x", "shape": [-1], "datatype": "BYTES", "data": ["a", "b"]}
    assert send({"inputs": [tensor]}).instances == ("a", "b")
    parsed = parse_request({"body": {"inputs": [tensor]}}, Headers(media_type="application/json", head_length="99"))
    assert parsed.instances == ("a", "b")


def test_base64_as_a_tensor_declares_it() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["YSB0ZXh0"]}
    assert send({"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}).instances == ("a text",)
    with pytest.raises(RequestError, match="content_type is base64 and its data is not"):
        send({"inputs": [{**tensor, "data": ["?"], "parameters": {"content_type": "base64"}}]})


ONE = elements(b"a text")


@pytest.mark.parametrize(
    ("head", "raw", "message"),
    [
        ({"inputs": [head_of(ONE, "BYTES", [1])]}, ONE[:-1], "10 bytes by its binary_data_size, and 9 are left"),
        ({"inputs": [head_of(ONE, "BYTES", [1])]}, ONE + b"x", "1 bytes of the body belong to no tensor"),
        ({"inputs": [head_of(ONE, "BYTES", [2])]}, ONE, "2 elements and data has 1"),
        ({"inputs": [head_of(ONE[:-1], "BYTES", [1])]}, ONE[:-1], "element at byte 0 ends after"),
        ({"inputs": [head_of(b"\x01\x00", "BYTES", [1])]}, b"\x01\x00", "element at byte 0 ends after"),
        ({"inputs": [head_of(b"\xff" * 4, "BYTES", [1])]}, b"\xff" * 4, "element at byte 0 ends after"),
        ({"inputs": [head_of(elements(b"\xff"), "BYTES", [1])]}, elements(b"\xff"), "not UTF-8"),
        ({"inputs": [head_of(b"abc", "FP32", [1])]}, b"abc", "3 bytes are no whole number of FP32"),
        ({"inputs": [head_of(b"abcd", "FP32", [2])]}, b"abcd", "2 elements and data has 1"),
        ({"inputs": [head_of(b"abcd", "UINT8", [-1, 3])]}, b"abcd", "does not fit the 4 elements"),
        ({"inputs": [head_of(b"abcd", "UINT8", [-1, -1])]}, b"abcd", "does not fit the 4 elements"),
        ({"inputs": [head_of(b"abcd", "UINT8", [-1, 0])]}, b"abcd", "does not fit the 4 elements"),
        ({"inputs": [head_of(b"abcd", "UINT8", [-2])]}, b"abcd", '"shape" must be'),
        ({"inputs": [{**head_of(b"a", "UINT8", [1]), "data": [1]}]}, b"a", '"data" and "binary_data_size"'),
        ({"inputs": [head_of(b"a", "UINT8", [1], binary_data_size=True)]}, b"a", "number of bytes"),
        ({"inputs": [head_of(b"a", "UINT8", [1], binary_data_size=-1)]}, b"a", "number of bytes"),
        ({"inputs": [{**head_of(b"a", "UINT8", [1]), "parameters": [1]}]}, b"a", '"parameters" is a JSON list'),
        (
            {"inputs": [head_of(b"a", "UINT8", [1]), head_of(b"b", "UINT8", [1])]},
            b"ab",
            "second tensor of the name 'x'",
        ),
        ({"instances": ["a"]}, b"a", 'an object with "inputs"'),
        ("a", b"a", 'an object with "inputs"'),
    ],
)
def test_parts_that_do_not_fit_together(head: Any, raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        send(head, raw)
    assert caught.value.status == 400


@pytest.mark.parametrize("length", ["-1", "x", "", "999", "1e1", "٣", "9" * 5000])
def test_a_head_length_that_is_none(length: str) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length is .* send the bytes of its JSON"):
        send({"inputs": []}, length=length)


def test_a_head_that_is_no_json() -> None:
    with pytest.raises(RequestError, match="first 3 bytes.* are no JSON"):
        send({"inputs": []}, length="3")


def test_binary_tensors_without_the_header_are_refused() -> None:
    text = json.dumps({"inputs": [head_of(ONE, "BYTES", [1])]}).encode()
    for media_type in (None, "application/octet-stream"):
        with pytest.raises(RequestError, match="begins as JSON does and is none"):
            parse_request({"body": text + ONE}, Headers(media_type=media_type))
    with pytest.raises(RequestError, match="no header Inference-Header-Content-Length"):
        parse_request({"body": json.loads(text)}, Headers(media_type="application/json"))


def test_instances_are_counted_before_they_are_made() -> None:
    raw = bytes(10**7)
    with pytest.raises(RequestError, match="10000000 instances; this model takes 128") as caught:
        send({"inputs": [head_of(raw, "UINT8", [10**7])]}, raw)
    assert caught.value.status == 413


TEXT = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, False),  # clients send it unasked, and read JSON
        ({"outputs": [{"name": "predictions"}]}, False),
        ({"outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "predictions", "parameters": {"binary_data": False}}]}, False),
    ],
)
def test_binary_outputs(asked: dict[str, Any], expected: bool) -> None:
    assert send({"inputs": [TEXT], **asked}).wants_binary is expected


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("predictions", '"outputs" must be a list'),
        (["predictions"], '"outputs" must be a list'),
        ([{"name": "logits"}], "is 'logits'; the one output is 'predictions'"),
        ([{}], "is 'None'"),
        ([{"name": "predictions", "parameters": 7}], "must be an object"),
        ([{"name": "predictions", "parameters": {"binary_data": 1}}], "must be an object"),
        (
            [{"name": "predictions", "parameters": {"classification": 2}}],
            "'classification', which this server does not",
        ),
        ([{"name": "predictions", "parameters": {"shared_memory_region": "r"}}], "'shared_memory_region', which"),
    ],
)
def test_outputs_that_are_not_offered(outputs: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        send({"inputs": [TEXT], "outputs": outputs})
    assert caught.value.status == 400


SIZES = st.lists(st.integers(-2, 5), max_size=3)
NAMES = st.sampled_from(["BYTES", "BOOL", "UINT8", "UINT16", "FP32", "BF16", "FP99", ""])
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"]), "shape": SIZES, "datatype": NAMES},
    optional={
        "parameters": st.none()
        | st.dictionaries(st.sampled_from(["binary_data_size", "content_type"]), st.integers(-1, 9)),
        "data": st.lists(st.integers(0, 300) | st.text(max_size=2), max_size=4),
    },
)


@given(st.lists(TENSORS, max_size=3), st.binary(max_size=12), st.sampled_from(["text", "image"]))
def test_any_tensors_are_understood_or_refused(tensors: list[Any], raw: bytes, instance_type: Any) -> None:
    try:
        assert send({"inputs": tensors}, raw, instance_type=instance_type).instances
    except RequestError as error:
        assert error.status == 400


@given(st.binary(max_size=60), st.text(max_size=3) | st.integers(0, 70).map(str))
def test_any_body_with_a_head_length_is_understood_or_refused(body: bytes, length: str) -> None:
    try:
        assert parse_request({"body": body}, Headers(head_length=length)).instances
    except RequestError as error:
        assert error.status in (400, 413, 415)
