"""The worker's side of a removal without loss; e2e/test_autoscale.py has both sides and TorchServe between them."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ts_handlers.hosts.torchserve import hold


@pytest.fixture
def name() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def gate(name: str) -> Iterator[socket.socket]:
    """Where whoever removes workers listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(hold.gate_name(name))
        listener.listen()
        listener.settimeout(5.0)
        yield listener


SECRET = "0123456789abcdef"


def held(value: str, most_s: float = 5.0) -> threading.Thread:
    thread = threading.Thread(target=hold.hold_if_asked, args=({"X-TS-Handlers-Hold": value}, most_s))
    thread.start()
    return thread


def test_a_worker_that_is_asked_is_held_until_it_is_let_go(gate: socket.socket, name: str) -> None:
    thread = held(f"{os.getpid()}:{name}:{SECRET}")
    connection, _ = gate.accept()
    with connection:
        assert connection.recv(100).decode() == SECRET
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(5.0)
    assert not thread.is_alive()


def test_it_goes_on_by_itself_after_a_while(gate: socket.socket, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    thread = held(f"{os.getpid()}:{name}:{SECRET}", most_s=0.1)
    connection, _ = gate.accept()
    thread.join(5.0)
    connection.close()
    assert not thread.is_alive()
    assert "not held any longer" in caplog.text


@pytest.mark.parametrize("value", ["", "1:2:3", "{pid}:{name}:zz", "{other}:{name}:0123456789abcdef", "{pid}:{name}"])
def test_nobody_else_is_held(gate: socket.socket, name: str, value: str) -> None:
    hold.hold_if_asked({hold.HEADER: value.format(pid=os.getpid(), other=os.getpid() + 1, name=name)})
    gate.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        gate.accept()


def test_a_header_with_nobody_behind_it_costs_nothing(name: str) -> None:
    started = time.monotonic()
    hold.hold_if_asked({hold.HEADER: f"{os.getpid()}:{name}:{SECRET}"})
    assert time.monotonic() - started < 2.0


def test_another_user_cannot_hold_a_worker(
    gate: socket.socket, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hold, "peer_uid", lambda _: os.geteuid() + 1)
    hold.hold_if_asked({hold.HEADER: f"{os.getpid()}:{name}:{SECRET}"})
    assert "another user asked to hold this worker" in caplog.text
