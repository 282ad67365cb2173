"""A request row -> instances.

Understood: text/plain, raw bytes, form fields, JSON (one instance, or a list of many), KServe v1 {"instances": [...]} and
KServe v2 {"inputs": [...]}, also with binary tensors. A body is read as its headers declare it. Where they declare nothing,
bytes are UTF-8 text, or, where a handler's instances are images, files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ts_handlers.errors import RequestError, UnsupportedMediaTypeError
from ts_handlers.requests.body import decode_text, unpack
from ts_handlers.requests.headers import BODY_NAMES, NO_HEADERS, Headers, is_json_type
from ts_handlers.requests.image_instance import KEYS
from ts_handlers.requests.kserve import parse_binary, parse_v1, parse_v2
from ts_handlers.requests.request import InstanceType, Protocol, Repeated, Request, check_count, json_type

__all__ = ["InstanceType", "Protocol", "Request", "parse_request"]

_ROUTING_FIELD = "model_name"
"""A form field, or a parameter of /invocations, by which TorchServe finds the model."""

_TEXT_TYPES = ("application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")
_LOOKS_LIKE_JSON = re.compile(rb'\s*(\{\s*["}]|\[\s*["{\[])')


@dataclass(frozen=True, slots=True)
class Reading:
    """How a handler reads requests.

    Attributes:
        instance_type: What bytes are.
        max_instances: Most instances in one request.
        max_body_bytes: Most bytes that a packed body unpacks to.
        options: Fields that may stand beside an image.
    """

    instance_type: InstanceType = "text"
    max_instances: int = 128
    max_body_bytes: int = 6_553_500
    options: Sequence[str] = ()


def parse_request(row: Mapping[str, Any], headers: Headers = NO_HEADERS, reading: Reading = Reading()) -> Request:
    """Read one row of TorchServe's batch.

    Args:
        row: Parameter name -> value. A body arrives under "body" or "data": parsed JSON, str, or bytes.
        headers: The row's headers.
        reading: How the handler reads requests.

    Raises:
        RequestError: 400, the row cannot be read.
        PayloadTooLargeError: 413, too many instances, or it unpacks to too much.
        UnsupportedMediaTypeError: 415, it is of a type, charset or encoding that is not read.
    """
    fields = {name: value for name, value in row.items() if name != _ROUTING_FIELD} if len(row) > 1 else row
    name = _body_name(fields, headers, reading.instance_type)
    if headers.is_form and not headers.is_utf8:
        raise UnsupportedMediaTypeError(  # TorchServe has read it as UTF-8
            f"a form in {(headers.charset or '')[:40]} is not read; send one in UTF-8", code="unsupported_charset"
        )
    if name is not None:
        beside = {key: fields[key] for key in reading.options if key in fields} if len(fields) > 1 else {}
        request = _BodyReader(headers, reading).read(fields[name], _body_type(name, headers))
        request = _with_options(request, beside) if beside else request
    elif reading.instance_type == "image" and fields:
        request = _parse_files(fields, headers, reading.options)
    else:
        request = _parse_fields(fields, headers, reading)
    if not request.instances:
        raise RequestError("the request has no instances; send at least one", code="empty_request")
    check_count(len(request.instances), reading.max_instances)
    return request


def _body_name(fields: Mapping[str, Any], headers: Headers, instance_type: InstanceType) -> str | None:
    """Return the field that is the whole request; None where each field of a form is a part of it.

    Beside a body that is no form stand the URL's query parameters, on the routes where TorchServe passes them on.
    """
    is_declared = headers.media_type or headers.has_url_fields
    if "body" in fields and not headers.is_form and (is_declared or instance_type == "text"):
        return "body"
    return next((name for name in BODY_NAMES if name in fields), None) if len(fields) == 1 else None


def _body_type(name: str, headers: Headers) -> str | None:
    return (headers.parts.get(name) or None) if headers.is_form else headers.media_type


@dataclass(frozen=True, slots=True)
class _BodyReader:
    """Reads a body by what its headers declare."""

    headers: Headers
    reading: Reading

    def read(self, body: Any, media_type: str | None) -> Request:
        encoding = self.headers.content_encoding
        if isinstance(body, Repeated):
            raise RequestError("a form field is there several times; send one", code="repeated_field")
        if encoding is not None and encoding != "identity":
            body = unpack(_bytes_of(body, encoding), encoding, self.reading.max_body_bytes)
        head_length = self.headers.head_length
        if head_length is not None and isinstance(body, (str, bytes, bytearray)):
            raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
            return parse_binary(raw, head_length, self.reading.max_instances, self.reading.instance_type)
        if isinstance(body, (bytes, bytearray)):
            return self._read_bytes(body, media_type)
        is_text = isinstance(body, str) and (media_type or "").startswith("text/")
        if not self.headers.is_utf8:  # TorchServe has read it as if it were
            if is_text:
                return self._read_bytes(body.encode("utf-8", "surrogatepass"), media_type)
            _check_ascii(body, self.headers.charset or "")
        return self._read_json_text(body) if is_text and is_json_type(media_type or "") else self._read_json(body)

    def _read_bytes(self, body: bytes | bytearray, media_type: str | None) -> Request:
        """Read a body that TorchServe left alone: it parses JSON only where that is UTF-8 and not packed.

        gRPC clients cannot give a media type: then a body that is a JSON object or list is taken as one, and everything
        else is a text, or an image.
        """
        raw = bytes(body)
        is_image = self.reading.instance_type == "image"
        if not raw:
            thing = "an image" if is_image else "a text"
            raise RequestError(f"the request body is empty; send {thing} or JSON", code="empty_request")
        if is_json_type(media_type or ""):
            return self._read_json_text(decode_text(raw, self.headers.charset))
        if not is_image:
            _check_text_type(media_type)
        if media_type is not None and media_type.startswith(f"{self.reading.instance_type}/"):
            return Request((raw if is_image else decode_text(raw, self.headers.charset),))
        if raw.lstrip()[:1] in (b"{", b"["):
            try:
                return self._read_json(orjson.loads(raw))
            except orjson.JSONDecodeError as error:
                if _LOOKS_LIKE_JSON.match(raw):
                    raise RequestError(
                        f"the body begins as JSON does and is none: {error}; correct it, or, if it is a text, declare "
                        "Content-Type: text/plain",
                        code="invalid_json",
                    ) from error
        if is_image and not (media_type or "").startswith("text/"):
            return Request((raw,))
        if is_image:
            return Request((_text_or_file(raw, self.headers.charset),))
        return Request((decode_text(raw, self.headers.charset),))

    def _read_json_text(self, text: str) -> Request:
        try:
            body = orjson.loads(text.removeprefix("\ufeff"))
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            raise RequestError(f"the body is not valid JSON: {error}", code="invalid_json") from error
        return self._read_json(body)

    def _read_json(self, body: Any) -> Request:
        if self.reading.instance_type == "image" and _is_nested_numbers(body):
            return Request((body,))
        if isinstance(body, list):
            return Request(tuple(body), is_many=True)
        if isinstance(body, Mapping):
            if "instances" in body:
                return parse_v1(body["instances"])
            if "inputs" in body:
                return parse_v2(body, self.reading.max_instances, self.reading.instance_type)
            return Request((body,))
        if isinstance(body, str):
            return Request((body,))
        raise RequestError(
            f"the body is a JSON {json_type(body)}; send a string, an object or a list", code="invalid_type"
        )


def _bytes_of(body: Any, encoding: str) -> bytes | bytearray:
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if isinstance(body, (bytes, bytearray)):
        return body
    raise RequestError(
        f"the body is declared as {encoding[:40]} and is plain JSON; leave Content-Encoding out",
        code="invalid_encoding",
    )


def _check_ascii(body: Any, charset: str) -> None:
    """Refuse JSON that TorchServe has parsed as UTF-8 although it is declared otherwise, unless that is the same."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        is_same = text.isascii() and decode_text(text.encode("ascii"), charset) == text
    except RequestError:
        is_same = False
    if not is_same:
        raise UnsupportedMediaTypeError(
            f"JSON in {charset[:40]} cannot be told from UTF-8 here; send JSON in UTF-8", code="unsupported_charset"
        )


def _check_text_type(media_type: str | None) -> None:
    """Refuse what is declared as something else than a text.

    Raises:
        UnsupportedMediaTypeError: 415, it is.
    """
    if media_type is not None and not media_type.startswith("text/") and media_type not in _TEXT_TYPES:
        raise UnsupportedMediaTypeError(
            f"the body is declared as {media_type[:80]!r}; send text/plain, application/json or a form"
        )


def _text_or_file(raw: bytes, charset: str | None) -> str | bytes:
    """Return base64 as a text; a file that is declared as a text is still a file."""
    try:
        return decode_text(raw, charset)
    except RequestError:
        if charset is not None:
            raise
        return raw


def _is_nested_numbers(body: Any) -> bool:
    """Say whether a JSON list is one image, three levels of lists deep, and not a list of many."""
    depth = 0
    while isinstance(body, list) and body:
        body, depth = body[0], depth + 1
    return depth == 3 and isinstance(body, (int, float))


def _with_options(request: Request, beside: Mapping[str, Any]) -> Request:
    """Return a request whose one image has what stands beside it as its options."""
    if len(request.instances) != 1 or isinstance(request.instances[0], Mapping):
        raise RequestError(
            f"{', '.join(beside)} stands beside several images, or JSON; put it into each image's object",
            code="invalid_type",
        )
    return Request(({"image": request.instances[0], **_texts(beside)},))


def _parse_files(fields: Mapping[str, Any], headers: Headers, options: Sequence[str]) -> Request:
    """Take each file of a form as an instance, in the form's order.

    Other fields are options, where the handler has such; the rest of them says something to the client's own side, and is
    ignored, as TorchServe's handlers do. A form without files has its images as text; what stands in the URL is none, as far
    as it can be told: it goes before the first field that has a usual name.
    """
    files = [name for name in fields if headers.parts.get(name)]
    if not files:
        files = [name for name in fields if name not in options]
        usual = [index for index, name in enumerate(files) if name in KEYS]
        files = files[usual[0] :] if usual and headers.has_url_fields else files
    beside = _texts({name: fields[name] for name in options if name in fields and name not in files})
    images = [_form_image(value, headers) for name in files for value in _all(fields[name])]
    return Request(tuple({"image": image, **beside} if beside else image for image in images), is_many=len(images) > 1)


def _form_image(value: Any, headers: Headers) -> Any:
    if headers.is_urlencoded and isinstance(value, (bytes, bytearray)):
        return bytes(value).replace(b" ", b"+")  # a + of base64 that was sent as it is
    return bytes(value) if isinstance(value, bytearray) else value


def _parse_fields(fields: Mapping[str, Any], headers: Headers, reading: Reading) -> Request:
    """Take the fields of a form as the keys of one object."""
    if not fields:
        is_image = reading.instance_type == "image"
        example = "an image as the body" if is_image else "a text with Content-Type: text/plain"
        raise RequestError(f"the request is empty; send {example}, or JSON with application/json", code="empty_request")
    values = list(fields.values())
    if headers.is_urlencoded and len(values) == 1 and values[0] in (b"", ""):
        raise RequestError(
            "the body was sent as a form of one field with no value; declare Content-Type: text/plain or application/json",
            code="invalid_type",
        )
    return Request((_texts(fields),))


def _texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    repeated = [name for name, value in fields.items() if isinstance(value, Repeated)]
    if repeated:
        raise RequestError(f"the form has {repeated[0][:40]!r} several times; send it once", code="repeated_field")
    return {
        name: decode_text(value) if isinstance(value, (bytes, bytearray)) else value for name, value in fields.items()
    }


def _all(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Repeated) else (value,)
