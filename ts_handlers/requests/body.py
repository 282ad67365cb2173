"""A body as its headers declare it: unpacked, and read in its charset."""

from __future__ import annotations

import zlib
from encodings.aliases import aliases

from ts_handlers.errors import PayloadTooLargeError, RequestError, UnsupportedMediaTypeError

_NO_CHARSETS = frozenset({"rot_13", "mbcs", "oem"})
_CHARSETS = {**aliases, **{name: name for name in (*aliases.values(), "cp874", "koi8_t", "koi8_u", "utf_8_sig")}}
"""Names of charsets, `-` and blanks written `_`, -> Python's; a client's own name is never looked up by import."""

_MARKS = {"utf_16": (b"\xff\xfe", b"\xfe\xff"), "utf_32": (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")}
"""Charsets that do not say which byte comes first -> the marks that do."""

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_MEMBERS = 16
"""Parts of a gzip file: each costs a copy of all that follows."""


def find_charset(name: str) -> str:
    """Return Python's name of a charset.

    Raises:
        UnsupportedMediaTypeError: 415, there is none of that name.
    """
    found = _CHARSETS.get(name.lower().replace("-", "_").replace(" ", "_"), "")
    if not found or found in _NO_CHARSETS or found.endswith("_codec"):
        raise UnsupportedMediaTypeError(
            f"the charset {name[:40]!r} is not known; send UTF-8", code="unsupported_charset"
        )
    return found


def decode_text(body: bytes | bytearray, charset: str | None = None) -> str:
    """Return the text of a body.

    Args:
        body: The bytes.
        charset: What the client declares; None: UTF-8.

    Raises:
        RequestError: 400, the bytes are of another charset, or UTF-16 or UTF-32 that does not say which byte is first.
        UnsupportedMediaTypeError: 415, the charset is not known.
    """
    codec = "utf_8" if charset is None else find_charset(charset)
    if codec in _MARKS and not body.startswith(_MARKS[codec]):
        name = codec.replace("_", "-")
        raise RequestError(
            f"the body is declared as {name} and has no byte order mark; send one, or declare {name}le or {name}be",
            code="invalid_charset",
        )
    try:
        return body.decode(codec)
    except UnicodeDecodeError as error:
        name = "UTF-8" if codec == "utf_8" else codec.replace("_", "-")
        raise RequestError(
            f"the body is not {name}: byte 0x{body[error.start]:02x} at offset {error.start}; send "
            f"{name if charset else 'UTF-8 text, or declare its charset in Content-Type'}",
            code="invalid_utf8" if codec == "utf_8" else "invalid_charset",
        ) from error


def unpack(body: bytes | bytearray, encoding: str, max_bytes: int) -> bytes:
    """Return what was packed with Content-Encoding gzip or deflate.

    Args:
        body: The packed bytes.
        encoding: Value of the header, in lower case.
        max_bytes: Most bytes to unpack.

    Raises:
        RequestError: 400, they are of another encoding, or cut off.
        PayloadTooLargeError: 413, they unpack to more than max_bytes.
        UnsupportedMediaTypeError: 415, the encoding is another.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnsupportedMediaTypeError(
            f"Content-Encoding {encoding[:40]!r} is not read; send gzip, deflate, or the body as it is",
            code="unsupported_encoding",
        )
    if bits == 15 and not _has_zlib_header(body):
        bits = -15  # what some clients call deflate has no header
    unpacked, rest = bytearray(), bytes(body)
    try:
        for _ in range(_MAX_MEMBERS if bits == 31 else 1):
            member = zlib.decompressobj(bits)
            unpacked += member.decompress(rest, max_bytes + 1 - len(unpacked))
            if len(unpacked) > max_bytes:
                raise PayloadTooLargeError(f"the body unpacks to more than {max_bytes} bytes; send less")
            if not member.eof:
                raise RequestError(f"the body is {encoding} and is cut off; send all of it", code="invalid_encoding")
            rest = member.unused_data
            if not rest:
                return bytes(unpacked)
    except zlib.error as error:
        raise RequestError(
            f"the body is declared as {encoding} and is not; leave Content-Encoding out, or pack it",
            code="invalid_encoding",
        ) from error
    raise RequestError(f"the body goes on after its {encoding} data; send that alone", code="invalid_encoding")


def _has_zlib_header(body: bytes | bytearray) -> bool:
    """Say whether bytes begin as RFC 1950 has it."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
