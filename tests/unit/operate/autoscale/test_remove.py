"""Both sides of a removal in one process; e2e/test_autoscale.py has TorchServe between them."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ts_handlers.hosts.torchserve import hold
from ts_handlers.operate.autoscale.remove import NotRemovedError, remove_last_worker
from ts_handlers.operate.torchserve.client import ModelStatus, TorchServe, Worker


@dataclass
class FakeTorchServe(TorchServe):
    """A TorchServe of which this process is every worker.

    Attributes:
        names: Its workers.
        asked: Describe requests so far.
        answers_itself: So many describe requests are taken by other workers, which answer at once.
        removes: Whether it does what it is asked.
        held_while_scaled: Whether the worker was held when it was asked.
        newcomer: A worker that somebody else adds once the last one is held.
        is_held: Set while the last one is held.
        is_let_go: Set once it has been.
        intrude: What somebody else does at every describe request.
    """

    names: list[str] = field(default_factory=lambda: ["9000", "9001"])
    asked: int = 0
    answers_itself: int = 2
    removes: bool = True
    held_while_scaled: bool = False
    newcomer: str = ""
    is_held: threading.Event = field(default_factory=threading.Event)
    is_let_go: threading.Event = field(default_factory=threading.Event)
    intrude: Callable[[], None] = lambda: None

    def status(self, model: str, version: str | None = None) -> ModelStatus:
        if self.is_held.is_set() and self.newcomer:
            self.names = [*self.names, self.newcomer]
        return ModelStatus(tuple(Worker(name, os.getpid(), True, 0) for name in self.names), 0, 100, 120.0)

    def describe_by_worker(self, model: str, headers: Mapping[str, str], timeout_s: float) -> Mapping[str, Any]:
        self.asked += 1
        self.intrude()
        if self.asked > self.answers_itself:
            self.is_held.set()
            hold.hold_if_asked(headers)
            self.is_held.clear()
            self.is_let_go.set()
        return {"pid": os.getpid()}

    def scale(self, model: str, num_workers: int) -> None:
        self.held_while_scaled = self.is_held.is_set()
        if self.removes:
            self.names = self.names[:num_workers]


def test_the_last_worker_is_held_while_it_is_removed_and_let_go_after() -> None:
    server = FakeTorchServe()
    remove_last_worker(server, "m", 10.0)
    assert server.names == ["9000"]
    assert server.asked == 3
    assert server.held_while_scaled
    assert server.is_let_go.wait(5.0)


def test_workers_that_somebody_else_changes_are_left_alone() -> None:
    server = FakeTorchServe(newcomer="9002")
    with pytest.raises(NotRemovedError, match="m: somebody else changes its workers; none is removed"):
        remove_last_worker(server, "m", 10.0)
    assert "9001" in server.names


def test_a_model_whose_workers_are_gone_is_said() -> None:
    with pytest.raises(NotRemovedError, match="m: it has no workers any longer"):
        remove_last_worker(FakeTorchServe(names=[]), "m", 10.0)


def test_a_torchserve_that_does_not_remove_it_is_said() -> None:
    with pytest.raises(NotRemovedError, match="TorchServe was asked to remove worker 9001 and has not"):
        remove_last_worker(FakeTorchServe(removes=False), "m", 10.0, settle_s=0.1)


def test_whoever_does_not_know_the_secret_is_not_taken_for_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of this user finds the gate in the kernel's table, and not the secret."""
    name = secrets.token_hex(8)
    monkeypatch.setattr(secrets, "token_hex", lambda count: name if count == 8 else "ab" * count)

    def intrude() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(hold.gate_name(name))
            stranger.sendall(b"cd" * 16)

    server = FakeTorchServe(answers_itself=10**6, intrude=intrude)
    with pytest.raises(NotRemovedError, match="too busy to be held"):
        remove_last_worker(server, "m", 0.3)
    assert server.names == ["9000", "9001"]
