"""Request bodies from a file or a folder."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ts_handlers.errors import OperatorError

TEXT_PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"
BINARY = "application/octet-stream"

MAX_TOTAL_BYTES = 512 * 2**20
"""All bodies are held in memory, so that reading files is no part of a latency."""

_WHOLE_FILE = ("image/", "audio/", "video/")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Payload:
    """One request body.

    Attributes:
        body: The bytes that are sent.
        content_type: Its Content-Type header.
    """

    body: bytes
    content_type: str


def read_payloads(path: Path, *, content_type: str | None = None, limit: int | None = None) -> tuple[Payload, ...]:
    """Read request bodies.

    A folder gives one body a file, in order of names (hidden files and subfolders are left out). A `.jsonl` file gives
    one JSON body a line, a `.json` file or an image, sound or video one body. Any other file is UTF-8 text, one body a
    line; of `label<TAB>text` the text alone. Blank lines are skipped.

    Args:
        path: The file or folder.
        content_type: Content-Type of every body; by default what the file's kind says.
        limit: Read at most so many bodies; by default all.

    Raises:
        OperatorError: There is nothing to send, or something that cannot be sent; names the file and the line.
    """
    if not path.exists():
        raise OperatorError(f"no payloads at {path}: give a file (one text a line) or a folder of files")
    payloads = []
    num_bytes = 0
    for payload in islice(_read(path), limit):
        num_bytes += len(payload.body)
        if num_bytes > MAX_TOTAL_BYTES:
            raise _too_large(path)
        payloads.append(payload if content_type is None else Payload(payload.body, content_type))
    if not payloads:
        raise OperatorError(f"no payloads in {path}: it is empty; give at least one request body")
    return tuple(payloads)


def _read(path: Path) -> Iterator[Payload]:
    kind = mimetypes.guess_type(path.name)[0] or BINARY
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                yield Payload(_read_file(file), mimetypes.guess_type(file.name)[0] or BINARY)
    elif path.suffix == ".jsonl":
        for number, line in _read_lines(path):
            yield Payload(_checked_json(line, f"{path}, line {number}"), JSON)
    elif kind == JSON:
        yield Payload(_checked_json(_read_file(path), str(path)), JSON)
    elif kind.startswith(_WHOLE_FILE):
        yield Payload(_read_file(path), kind)
    else:
        for number, line in _read_lines(path):
            yield Payload(_text(line, f"{path}, line {number}"), TEXT_PLAIN)


def _text(line: bytes, where: str) -> bytes:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OperatorError(
            f"{where} is not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}): convert it, or give a "
            "folder, whose files are sent as they are"
        ) from error
    body = text.split("\t", 1)[-1]
    if not body.strip():
        raise OperatorError(f"{where} has a label and no text: {text!r}; write label<TAB>text")
    return body.encode()


def _checked_json(body: bytes, where: str) -> bytes:
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are one, too
        raise OperatorError(f"{where} is no JSON ({error}): {body[:60]!r}; correct it") from error
    return body


def _read_lines(path: Path) -> Iterable[tuple[int, bytes]]:
    """Yield line numbers and lines that are not blank, cut at LF alone: U+0085 can be part of a text."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TOTAL_BYTES + 1), b""), start=1):
            if len(line) > MAX_TOTAL_BYTES:
                raise _too_large(path)
            text = (line.removeprefix(_BOM) if number == 1 else line).rstrip(b"\r\n")
            if text.strip():
                yield number, text


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(MAX_TOTAL_BYTES + 1)
    if not body:
        raise OperatorError(f"{path} is empty: remove it, or put a request body in it")
    if len(body) > MAX_TOTAL_BYTES:
        raise _too_large(path)
    return body


def _too_large(path: Path) -> OperatorError:
    return OperatorError(
        f"{path} has more than {MAX_TOTAL_BYTES // 2**20} MiB of payloads, which are held in memory: read the first "
        "ones only (ts-handlers bench --limit N), or give fewer"
    )
