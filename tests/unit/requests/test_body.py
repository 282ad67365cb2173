from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_handlers.errors import RequestError
from ts_handlers.requests.body import decode_text, find_charset, unpack

TEXT = "Grüße aus Łódź"


@pytest.mark.parametrize(
    ("declared", "codec", "text"),
    [
        (None, "utf-8", TEXT),
        ("utf-8", "utf-8", TEXT),
        ("UTF8", "utf-8", TEXT),
        ("utf-16", "utf-16", TEXT),
        ("utf-16le", "utf-16-le", TEXT),
        ("UTF-16BE", "utf-16-be", TEXT),
        ("utf-32", "utf-32", TEXT),
        ("iso-8859-2", "iso8859-2", TEXT),
        ("latin-1", "latin-1", "Grüße"),
        ("latin1", "latin-1", "Grüße"),
        ("windows-1252", "cp1252", "10 € “Grüße”"),
        ("us-ascii", "ascii", "plain"),
        ("koi8-r", "koi8-r", "привет"),
        ("koi8-u", "koi8-u", "привіт"),
        ("shift_jis", "shift_jis", "東京"),
        ("gb18030", "gb18030", "北京😀"),
        ("big5", "big5", "大學"),
        ("euc-kr", "euc-kr", "대학"),
        ("iso-2022-jp", "iso2022_jp", "東京"),
    ],
)
def test_a_text_is_read_in_the_charset_it_declares(declared: str | None, codec: str, text: str) -> None:
    assert decode_text(text.encode(codec), declared) == text


@pytest.mark.parametrize(
    ("body", "declared", "status", "code"),
    [
        (b"a", "x-unknown", 415, "unsupported_charset"),
        (b"a", "binary", 415, "unsupported_charset"),
        (b"a", "", 415, "unsupported_charset"),
        (b"a", "../../os", 415, "unsupported_charset"),
        (b"a\x00", "rot13", 415, "unsupported_charset"),
        (b"a", "zlib", 415, "unsupported_charset"),
        (b"a", "base64_codec", 415, "unsupported_charset"),
        (b"a", "punycode", 415, "unsupported_charset"),
        (b"a", "unicode_escape", 415, "unsupported_charset"),
        (b"\xff", None, 400, "invalid_utf8"),
        (b"\xff", "utf-8", 400, "invalid_utf8"),
        (b"\xff", "ascii", 400, "invalid_charset"),
        (b"\x81", "shift_jis", 400, "invalid_charset"),
        ("é".encode("utf-16-le"), "utf-16", 400, "invalid_charset"),  # which byte is first is not said
        (b"a", "utf-32", 400, "invalid_charset"),
        (b"a", "utf-16le", 400, "invalid_charset"),
    ],
)
def test_a_charset_that_is_not_known_or_not_met(body: bytes, declared: str | None, status: int, code: str) -> None:
    with pytest.raises(RequestError, match="send") as caught:
        decode_text(body, declared)
    assert (caught.value.status, caught.value.code) == (status, code)


@given(st.text(max_size=20))
def test_no_name_of_a_charset_is_looked_up_by_import(name: str) -> None:
    try:
        find_charset(name)
    except RequestError as error:
        assert error.status == 415


@given(st.binary(max_size=40), st.sampled_from(["utf-7", "utf-16", "utf-8-sig", "hz", "iso-2022-jp", "gbk", "cp037"]))
def test_any_bytes_in_a_charset_are_read_or_refused(body: bytes, charset: str) -> None:
    try:
        decode_text(body, charset)
    except RequestError as error:
        assert error.status == 400


RAW = zlib.compressobj(wbits=-15)
HEADLESS = RAW.compress(b"a text") + RAW.flush()


@pytest.mark.parametrize(
    ("packed", "encoding", "expected"),
    [
        (gzip.compress(b"a text", mtime=0), "gzip", b"a text"),
        (gzip.compress(b"a text", mtime=0), "x-gzip", b"a text"),
        (gzip.compress(b"a ", mtime=0) + gzip.compress(b"text", mtime=0), "gzip", b"a text"),
        (gzip.compress(b"", mtime=0), "gzip", b""),
        (zlib.compress(b"a text"), "deflate", b"a text"),
        (HEADLESS, "deflate", b"a text"),
        (gzip.compress(bytes(1000), mtime=0), "gzip", bytes(1000)),
    ],
)
def test_a_packed_body(packed: bytes, encoding: str, expected: bytes) -> None:
    assert unpack(packed, encoding, 1000) == expected


@pytest.mark.parametrize(
    ("packed", "encoding", "status", "code"),
    [
        (b"plain", "gzip", 400, "invalid_encoding"),
        (b"", "gzip", 400, "invalid_encoding"),
        (b"", "deflate", 400, "invalid_encoding"),
        (gzip.compress(b"a text", mtime=0)[:-3], "gzip", 400, "invalid_encoding"),
        (gzip.compress(b"a text", mtime=0) + b"more", "gzip", 400, "invalid_encoding"),
        (zlib.compress(b"a text") + b"more", "deflate", 400, "invalid_encoding"),
        (gzip.compress(b"a", mtime=0) * 17, "gzip", 400, "invalid_encoding"),
        (gzip.compress(bytes(1001), mtime=0), "gzip", 413, "payload_too_large"),
        (gzip.compress(bytes(10**8), mtime=0), "gzip", 413, "payload_too_large"),
        (gzip.compress(bytes(600), mtime=0) * 2, "gzip", 413, "payload_too_large"),
        (zlib.compress(bytes(1001)), "deflate", 413, "payload_too_large"),
        (b"x", "br", 415, "unsupported_encoding"),
        (b"x", "gzip, gzip", 415, "unsupported_encoding"),
    ],
)
def test_a_body_that_cannot_be_unpacked(packed: bytes, encoding: str, status: int, code: str) -> None:
    with pytest.raises(RequestError, match="send|pack") as caught:
        unpack(packed, encoding, 1000)
    assert (caught.value.status, caught.value.code) == (status, code)


@given(st.binary(), st.sampled_from(["gzip", "deflate"]))
def test_any_packed_bytes_are_unpacked_or_refused(packed: bytes, encoding: str) -> None:
    try:
        assert len(unpack(packed, encoding, 100)) <= 100
    except RequestError as error:
        assert error.status in (400, 413)
