"""What Gson 2.9 made of the same texts, in the jar of TorchServe 0.12."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.operate.torchserve import gson

MODELS = range(2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'m': {'1.0': {'batchSize': 4}}}", {"m": {"1.0": {"batchSize": 4}}}),
        ('{“m": {“1.0”: {}}}', {'“m"': {"“1.0”": {}}}),
        ('{"m": {"1.0": {"a": 1, "a": 2}}}', {"m": {"1.0": {"a": 2}}}),
        (" ", None),
        ("null", None),
        ("{ # c\n'm': /* x\n */ {}}", {"m": {}}),
        ("{m= {1.0=> {a: 4; b: 5}}}", {"m": {"1.0": {"a": 4, "b": 5}}}),
        (
            "{a: tru, b: NaN, c: 0x10, d: -1, e: 'x\ny', f: [1,], g: 1e3, h: True, i: 4.5, j: 00012}",
            {"a": "tru", "b": "NaN", "c": "0x10", "d": -1, "e": "x\ny", "f": [1, None], "g": 1e3}
            | {"h": True, "i": 4.5, "j": "00012"},
        ),
        ("\ufeff{\"m\": '\\u00e9\\/\\n'}", {"m": "é/\n"}),
        ("{3: {true: {}}}", {"3": {"true": {}}}),
        ("[]", []),
        ("m", "m"),
    ],
)
def test_what_gson_reads(text: str, value: object) -> None:
    assert gson.parse(text, MODELS) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"m": {}, "m": {}}', "'m' is given twice"),
        ('{"m": {"1.0": {}, "1.0": {}}}', "'1.0' is given twice"),
        ("{} // x", "character 3 should be the end, and found"),
        ('{"m": {"a": 1,}}', "character 15 should be a name, and found '}}'"),
        ('{"m": {"a": }}', "should be a value"),
        ('{"m" {}}', "should be ':'"),
        ('{"m": {"a": 1 "b": 2}}', "should be ',' or '}'"),
        ("{", "and it ends"),
        ('{"m": {"a": 1}', "and it ends"),
        ('{"m": "\\q"}', "instead of \\\\q"),
        ('{"m": "x}', "a text that ends"),
        ("[1 2]", "should be ',' or ']'"),
        ("[" * 200, "nested too deeply"),
    ],
)
def test_what_gson_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gson.parse(text, MODELS)


@pytest.mark.parametrize(
    ("value", "number"), [("8", 8), (4.5, 4), ([8], 8), ([1, 2], 0), (3_000_000_000, -1_294_967_296), ("00012", 12)]
)
def test_what_counts_as_a_number(value: object, number: int) -> None:
    assert gson.as_int(value) == number


@pytest.mark.parametrize("value", ["many", True, None, "4.5", {}, "", " 8", "9" * 30, "3000000000"])
def test_what_ends_torchserve(value: object) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        gson.as_int(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_all_json_is_read_as_json(value: Any) -> None:
    assert gson.parse(json.dumps(value)) == value or "\\ud" in json.dumps(value)
