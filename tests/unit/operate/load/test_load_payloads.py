from __future__ import annotations

from pathlib import Path

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.load import payloads
from ts_handlers.operate.load.payloads import Payload, read_payloads

TEXT = "text/plain; charset=utf-8"
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_text_file_is_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufefffirst\r\n\n  \nZürich\u0085 again\n1\tlabelled\ttext\nlast".encode())

    bodies = [payload.body.decode() for payload in read_payloads(path)]

    assert bodies == ["first", "Zürich\u0085 again", "labelled\ttext", "last"]
    assert {payload.content_type for payload in read_payloads(path)} == {TEXT}


def test_lines_of_json_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"text":  "a\\tb"}\n\n["x"]\n')

    assert read_payloads(path) == (
        Payload(b'{"text":  "a\\tb"}', "application/json"),
        Payload(b'["x"]', "application/json"),
    )


@pytest.mark.parametrize(
    ("name", "body", "content_type"),
    [("request.json", b'{"instances":\n[]}', "application/json"), ("cat.png", PNG, "image/png")],
)
def test_json_and_images_are_one_body(tmp_path: Path, name: str, body: bytes, content_type: str) -> None:
    (tmp_path / name).write_bytes(body)

    assert read_payloads(tmp_path / name) == (Payload(body, content_type),)


def test_a_folder_is_one_body_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "c.tensor").write_bytes(b"\x00")
    (tmp_path / ".hidden").write_bytes(b"no")
    (tmp_path / "folder").mkdir()

    assert read_payloads(tmp_path) == (
        Payload(PNG, "image/png"),
        Payload(b"\xff\xd8", "image/jpeg"),
        Payload(b"\x00", "application/octet-stream"),
    )


def test_a_limit_reads_no_further_and_the_content_type_can_be_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"one\ntwo\n\xff\n")

    read = read_payloads(path, limit=2, content_type="application/x-a")
    assert read == (Payload(b"one", "application/x-a"), Payload(b"two", "application/x-a"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("texts.txt", b"", "no payloads in .*texts.txt: it is empty"),
        ("texts.txt", b"\n \n", "it is empty"),
        ("texts.txt", b"one\ntwo \xff\n", r"texts.txt, line 2 is not UTF-8 \(byte 0xff at column 5\).* a folder"),
        ("texts.txt", b"1\t \n", r"line 1 has a label and no text: '1\\t '"),
        ("requests.jsonl", b"{}\n{a}\n", r"requests.jsonl, line 2 is no JSON \(.*\): b'{a}'"),
        ("request.json", b"\xff", "request.json is no JSON"),
        ("cat.png", b"", "cat.png is empty"),
    ],
)
def test_what_cannot_be_sent_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(OperatorError, match=message):
        read_payloads(path)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no payloads at .*missing"):
        read_payloads(tmp_path / "missing")
    with pytest.raises(OperatorError, match="it is empty"):
        read_payloads(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"), [("texts.txt", b"12345\n" * 3), ("texts.txt", b"x" * 12), ("cat.png", b"x" * 12)]
)
def test_more_than_fits_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setattr(payloads, "MAX_TOTAL_BYTES", 11)
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(OperatorError, match="--limit N"):
        read_payloads(path)
