"""TorchServe's own codec, reading what a frontend would send, through our buffer and without it."""

from __future__ import annotations

import logging
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from ts.protocol import otf_message_handler

from ts_handlers.hosts.torchserve.codec import BUFFER_BYTES, buffer_reads, keep_repeated_fields
from ts_handlers.requests.request import Repeated

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

Pair = tuple[socket.socket, socket.socket]

UNBUFFERED = otf_message_handler._retrieve_buffer
END = struct.pack("!i", -1)


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", UNBUFFERED)
    buffer_reads(otf_message_handler)
    assert otf_message_handler._retrieve_buffer is not UNBUFFERED
    module: ModuleType = otf_message_handler
    return module


@pytest.fixture
def pair() -> Iterator[Pair]:
    frontend, worker = socket.socketpair()
    with frontend, worker:
        frontend.settimeout(20)
        yield frontend, worker


def field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def request(number: int, body: bytes) -> bytes:
    headers = b"".join(field(f"header-{index}".encode()) + field(b"value") for index in range(number))
    return field(b"id-%d" % number) + headers + END + field(b"body") + field(b"image/jpeg") + field(body) + END


def form(*fields: tuple[bytes, bytes, bytes]) -> bytes:
    return field(b"id") + END + b"".join(field(part) for parts in fields for part in parts) + END


def message(*bodies: bytes) -> bytes:
    return b"I" + b"".join(request(number, body) for number, body in enumerate(bodies)) + END


def send(frontend: socket.socket, content: bytes) -> threading.Thread:
    thread = threading.Thread(target=frontend.sendall, args=(content,))
    thread.start()
    return thread


def test_messages_are_what_torchserve_reads(codec: ModuleType, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    frontend, worker = pair
    large = bytes(range(256)) * (3 * BUFFER_BYTES // 256)
    bodies = [b"", b"small", large, b"last"], [b"next"], [large]
    content = b"".join(message(*some) for some in bodies)
    sending = send(frontend, content)
    buffered = [codec.retrieve_msg(worker) for _ in bodies]
    sending.join()
    monkeypatch.setattr(codec, "_retrieve_buffer", UNBUFFERED)
    sending = send(frontend, content)
    assert buffered == [codec.retrieve_msg(worker) for _ in bodies]
    sending.join()
    assert [[row["parameters"][0]["value"] for row in rows] for _, rows in buffered] == list(bodies)


def test_a_message_is_taken_from_the_kernel_at_once(codec: ModuleType, pair: Pair) -> None:
    frontend, worker = pair
    frontend.sendall(message(b"one", b"two"))
    assert codec._retrieve_buffer(worker, 1) == b"I"
    assert not select.select([worker], [], [], 0)[0]
    assert codec._retrieve_int(worker) == len(b"id-0")


def test_a_new_connection_is_read_from_its_start(codec: ModuleType, pair: Pair) -> None:
    frontend, worker = pair
    frontend.sendall(message(b"of the first") + b"left over")
    codec.retrieve_msg(worker)
    other_frontend, other_worker = socket.socketpair()
    with other_frontend, other_worker:
        other_frontend.sendall(message(b"of the second"))
        _, rows = codec.retrieve_msg(other_worker)
    assert rows[0]["parameters"][0]["value"] == b"of the second"


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_frontend_that_is_gone_ends_the_worker(
    length: int, codec: ModuleType, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    frontend, worker = pair
    frontend.sendall(message(b"cut off")[:length])
    frontend.close()
    with pytest.raises(SystemExit):
        codec.retrieve_msg(worker)
    assert caplog.messages == ["Frontend disconnected."]


def test_it_is_done_once(codec: ModuleType) -> None:
    before = codec._retrieve_buffer
    buffer_reads(codec)
    assert codec._retrieve_buffer is before


def test_another_codec_is_left_alone_and_named(caplog: pytest.LogCaptureFixture) -> None:
    codec: Any = ModuleType("codec")
    before = dict(vars(codec))
    buffer_reads(codec)
    assert vars(codec) == before
    assert "has no _retrieve_buffer" in caplog.text


WORKER = """
import sys
from pathlib import Path
from ts.protocol import otf_message_handler
import ts_handlers
from ts_handlers.testing import FakeContext, load_handler
class OwnProcess(FakeContext):
    @property
    def system_properties(self):
        return {**super().system_properties, "owns_process": True}
ts_handlers.testing.FakeContext = OwnProcess
load_handler(ts_handlers.TextClassificationHandler, Path(sys.argv[1]), serialized_file="model.onnx")
print(otf_message_handler._retrieve_buffer.__module__)
"""


def test_a_worker_of_torchserve_reads_through_a_buffer(model_dirs: ModelDirs) -> None:
    command = [sys.executable, "-c", WORKER, str(model_dirs.get("tiny-distilbert"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.stdout.split()[-1:] == ["ts_handlers.hosts.torchserve.codec"], result.stderr


def test_fields_of_one_name_are_all_kept(codec: ModuleType, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_retrieve_request", codec._retrieve_request)
    for _ in range(2):  # a second time changes nothing
        keep_repeated_fields(codec)
    frontend, worker = pair
    several = form((b"image", b"image/png", b"1"), (b"who", b"", b"me"), (b"image", b"image/png", b"2"))
    sender = send(frontend, b"I" + several + form((b"a", b"", b"x"), (b"b", b"", b"y")) + END)
    _, (first, second) = codec.retrieve_msg(worker)
    sender.join()
    assert first["parameters"] == [
        {"name": "image", "contentType": "image/png", "value": Repeated((b"1", b"2"))},
        {"name": "who", "contentType": "", "value": b"me"},
    ]
    assert [parameter["value"] for parameter in second["parameters"]] == [b"x", b"y"]


def test_a_codec_without_requests_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    keep_repeated_fields(ModuleType("codec"))
    assert "has no _retrieve_request" in caplog.text
