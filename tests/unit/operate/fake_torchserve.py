"""A server that answers as TorchServe's management API does, tokens and their renewal included."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REFUSED = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}


class FakeTorchServe:
    """Answers a path with what a test set, for the token in its key file only; all is 404 else.

    Attributes:
        answers: What is answered, by path without a query: (status, body), or a function that returns it.
        seen: Each request, with its token.
        key_file: Where its tokens are, once it was asked to have some.
        url: Its address.
    """

    def __init__(self, key_file: Path | None = None) -> None:
        self.answers: dict[str, tuple[int, Any] | Callable[[], tuple[int, Any]]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.key_file = key_file
        self._token = ""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                status, body = fake.answer(f"{self.command} {self.path}", self.headers.get("Authorization"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            do_GET = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        if key_file is not None:
            self.new_token()

    def new_token(self) -> None:
        """Make another token, and write it to the key file."""
        assert self.key_file is not None
        self._token = f"token-{len(self.seen)}"
        keys = {"management": {"key": self._token}, "inference": {"key": "other"}, "API": {"key": "api"}}
        self.key_file.write_text(json.dumps(keys))

    def expire(self) -> None:
        """Let the token end, as TorchServe's do after token_expiration_min."""
        self._token = ""

    def answer(self, request: str, authorization: str | None) -> tuple[int, Any]:
        """Return status and body."""
        self.seen.append((request, authorization))
        if request == "GET /token?type=management" and authorization == "Bearer api":
            self.new_token()
            return 200, ""
        if self.key_file is not None and authorization != f"Bearer {self._token}":
            return 400, REFUSED
        found = self.answers.get(request.partition(" ")[2].partition("?")[0], (404, {"message": "Model not found"}))
        return found() if callable(found) else found


@contextmanager
def fake_torchserve(key_file: Path | None = None) -> Iterator[FakeTorchServe]:
    """Run one."""
    fake = FakeTorchServe(key_file)
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        thread.join()
        fake.server.server_close()


def described(*workers: tuple[str, str, int], queued: int = 0) -> tuple[int, Any]:
    """Return the answer that describes a model with these workers: (number, status, pid) of each."""
    return 200, [
        {
            "workers": [{"id": number, "status": status, "pid": pid} for number, status, pid in workers],
            "jobQueueStatus": {"pendingRequests": queued, "remainingCapacity": 100 - queued},
            "startupTimeout": 60,
            "maxBatchDelay": 1,
        }
    ]
