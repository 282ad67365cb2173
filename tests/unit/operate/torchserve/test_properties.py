from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve.properties import Entry, parse, parse_lines, render

characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters)


@given(st.dictionaries(texts, texts), texts)
def test_what_is_written_is_read_back(values: dict[str, str], comment: str) -> None:
    text = render([Entry(key, value, comment) for key, value in values.items()], header=comment)

    assert parse(text) == values
    assert text.isascii()


@given(st.text())
def test_any_text_is_read_or_refused_clearly(text: str) -> None:
    try:
        values = parse(text)
    except ConfigError as error:
        assert "\\u" in str(error)
    else:
        assert all(isinstance(value, str) for value in values.values())


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=b", {"a": "b"}),
        ("  a : b ", {"a": "b "}),
        ("a b", {"a": "b"}),
        ("a", {"a": ""}),
        ("# a=b\n! a=b\n\n", {}),
        ("a=b\\\n   c\\\n   d", {"a": "bcd"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a\\=b=c", {"a=b": "c"}),
        ("a=\\u00e9\\ud83d\\ude00\\t", {"a": "é😀\t"}),
        ("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1\na=2", {"a": "2"}),
        ("url=http://127.0.0.1:8080", {"url": "http://127.0.0.1:8080"}),
    ],
)
def test_lines_mean_what_java_says(text: str, values: dict[str, str]) -> None:
    assert parse(text) == values


def test_a_value_with_json_stays_on_one_plain_line() -> None:
    text = render([Entry("models", '{"a": {"1.0": {"minWorkers": 2}}}', "two\nlines")])

    assert text == '# two\n# lines\nmodels={"a": {"1.0": {"minWorkers": 2}}}\n'


@pytest.mark.parametrize(
    ("text", "swallowed"),
    [("a=x\\.y\\d\\.z", ".d"), ("a=x\\\\.y", ""), ("a=http\\://x\\=\\ y\\#\\!", ""), ("a=\\u0041\\t\\n", "")],
)
def test_a_backslash_that_stands_for_nothing_is_noticed(text: str, swallowed: str) -> None:
    (line,) = parse_lines(text)

    assert line.swallowed == swallowed


def test_a_line_is_known_as_it_is_written() -> None:
    first, second, third = parse_lines("a : x\\\n  y\nb z\nc=1\\")

    assert (first.key, first.value, first.separator, first.is_continued) == ("a", "xy", ":", True)
    assert (second.separator, second.is_continued) == ("", False)
    assert (third.value, third.is_continued) == ("1", False)
