"""What the headers say of a request: the type and charset of its body, how it was packed, and by which form it came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ts_handlers.requests.body import find_charset
from ts_handlers.requests.request import Protocol

JSON_CONTENT_TYPE = "application/json"
BINARY_CONTENT_TYPE = "application/octet-stream"
HEAD_LENGTH_HEADER = "Inference-Header-Content-Length"
"""KServe v2's binary tensors: bytes of the JSON that the raw tensors follow."""

BODY_NAMES = ("body", "data")

_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([^\"';\s]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of one row.

    Attributes:
        media_type: Type of the body, in lower case and without parameters; None where the client gave none.
        charset: Charset that its Content-Type declares.
        content_encoding: How the body was packed, in lower case.
        head_length: `HEAD_LENGTH_HEADER` as it was sent.
        is_kserve: Whether the request came to /v1/models/... or /v2/models/...
        has_url_fields: Whether the URL's query parameters stand among the fields, before all others: so TorchServe does on
            each route but /predictions and KServe's. gRPC, which has no URL, has no header Host.
        parts: Form fields -> the type each was sent with: "" for those that are no file.
    """

    media_type: str | None = None
    charset: str | None = None
    content_encoding: str | None = None
    head_length: str | None = None
    is_kserve: bool = False
    has_url_fields: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Headers:
        """Read a row's headers: the request's, and one mapping for each field of a form or for the body.

        TorchServe keeps the client's upper and lower case, takes the charset off what it says of the body, and adds
        `explain` on /predictions and KServe's routes and `url_path` on /predictions alone.
        """
        sent: dict[str, str] = {}
        parts: dict[str, str] = {}
        for name, value in headers.items():
            if isinstance(value, str):
                sent[name.lower()] = value
            elif isinstance(value, Mapping):
                parts[name] = _media_type(str(value.get("content-type") or ""))
        content_type = sent.get("content-type", "")
        media_type = _media_type(content_type)
        if media_type not in _FORM_TYPES:
            media_type = next((parts[name] for name in BODY_NAMES if parts.get(name)), media_type)
        charset = _CHARSET.search(content_type) if ";" in content_type else None
        return cls(
            media_type=media_type or None,
            charset=charset[1].lower() if charset else None,
            content_encoding=sent.get("content-encoding", "").strip().lower() or None,
            head_length=sent.get("inference-header-content-length"),
            is_kserve="explain" in sent and "url_path" not in sent,
            has_url_fields="host" in sent and "explain" not in sent,
            parts=parts,
        )

    @property
    def is_form(self) -> bool:
        """Whether the row is the fields of a form."""
        return self.media_type in _FORM_TYPES

    @property
    def is_urlencoded(self) -> bool:
        """Whether the row is the fields of a form as browsers send it without files."""
        return self.media_type == _FORM_TYPES[1]

    @property
    def is_utf8(self) -> bool:
        """Whether the charset it declares, if any, is UTF-8 or a part of it.

        Raises:
            UnsupportedMediaTypeError: 415, the charset is not known.
        """
        return self.charset is None or find_charset(self.charset) in ("utf_8", "ascii")

    @property
    def is_json(self) -> bool:
        """Whether the body is declared as JSON."""
        return is_json_type(self.media_type or "")


NO_HEADERS = Headers()


def is_json_type(media_type: str) -> bool:
    """Say whether a media type is JSON's, or one of those built on it (RFC 6839)."""
    return media_type in (JSON_CONTENT_TYPE, "text/json") or media_type.endswith("+json")


def guess_protocol(row: Mapping[str, Any], headers: Headers) -> Protocol:
    """Return the form that a request which could not be read was most likely meant to have."""
    if headers.head_length is not None:
        return Protocol.KSERVE_V2
    body = next((row[name] for name in BODY_NAMES if name in row), None)
    if isinstance(body, (bytes, bytearray)):
        body = body if headers.is_json or body.lstrip()[:1] == b"{" else b""
        keys = {name for name in ("instances", "inputs") if b'"%b"' % name.encode() in body}
    else:
        keys = set(body) & {"instances", "inputs"} if isinstance(body, Mapping) else set()
    if "instances" in keys:
        return Protocol.KSERVE_V1
    return Protocol.KSERVE_V2 if keys or headers.is_kserve else Protocol.PLAIN


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
