"""A worker that can compute nothing any longer, in a real TorchServe; the error is made up, for there is no GPU here."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.e2e.archives import pack_model
from tests.e2e.conftest import run_cli
from tests.e2e.test_placement import manage
from tests.e2e.test_serving import ask
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

if TYPE_CHECKING:
    from pathlib import Path

    from tests.model_dirs import ModelDirs

pytestmark = pytest.mark.e2e

HANDLER = """
import ts_handlers

LOST = []


class Handler(ts_handlers.TextClassificationHandler):
    def decode(self, instance):
        LOST.extend(["for ever"] * (instance == "break"))
        return super().decode(instance)

    def open_session(self, files):
        session = super().open_session(files)
        run = session.run

        def broken(arrays, *, num_parallel=1):
            if LOST:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return run(arrays, num_parallel=num_parallel)

        session.run = broken
        return session
"""


def test_another_worker_takes_the_place_of_one_that_lost_its_gpu(model_dirs: ModelDirs, tmp_path: Path) -> None:
    pack_model(tmp_path / "m.mar", "tiny-distilbert", model_dirs, HANDLER)
    run_cli("configure", tmp_path, "--workers", 1, *free_port_options())
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as temporary,
        BackgroundServer(
            tmp_path, environ={**os.environ, "TEMP": temporary, "TS_HANDLERS_SCOPE": f"test-{uuid.uuid4().hex[:12]}"}
        ) as server,
    ):
        before = manage(server, "GET", "/models/m")[0]["workers"][0]["pid"]
        assert ask(server, "/predictions/m", b"fine", "text/plain")[0] == 200
        assert ask(server, "/predictions/m", b"break", "text/plain")[0] == 500
        deadline = time.monotonic() + 60
        while ask(server, "/predictions/m", b"fine", "text/plain")[0] != 200:
            assert time.monotonic() < deadline, server.console_log.read_text(encoding="utf-8")
            time.sleep(0.2)
        assert manage(server, "GET", "/models/m")[0]["workers"][0]["pid"] != before
        assert "this worker ends" in server.console_log.read_text(encoding="utf-8")
