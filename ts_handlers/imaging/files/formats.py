"""Formats of images, by the first bytes of a file."""

from __future__ import annotations

from ts_handlers.errors import UnsupportedMediaTypeError

TAKEN = "JPEG, PNG, WebP, GIF, BMP or TIFF"

_SIGNATURES: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (b"\xff\xd8\xff", ("JPEG",)),
    (b"\x89PNG\r\n\x1a\n", ("PNG",)),
    (b"GIF8", ("GIF",)),
    (b"BM", ("BMP",)),
    (b"II*\x00", ("TIFF",)),
    (b"MM\x00*", ("TIFF",)),
    (b"II+\x00", ("TIFF",)),
    (b"MM\x00+", ("TIFF",)),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


def formats_of(content: bytes) -> tuple[str, ...]:
    """Return Pillow's names of what a file can be.

    Raises:
        UnsupportedMediaTypeError: 415, it is of no format that is taken.
    """
    for signature, formats in _SIGNATURES:
        if content.startswith(signature):
            return formats
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ("WEBP",)
    raise UnsupportedMediaTypeError(f"the body is {_guess(content)}; send {TAKEN}", code="unsupported_image")


def _guess(content: bytes) -> str:
    """Say what a body that is no image we take might be, without quoting it."""
    start = content[:512].lstrip().lower()
    if content[4:8] == b"ftyp" and content[8:12].lower() in _HEIC_BRANDS:
        return "HEIC or AVIF, which is not decoded here"
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "SVG or XML, which has no pixels"
    if start.startswith(b"%pdf"):
        return "a PDF"
    return "of no image format that is known here"
