from __future__ import annotations

import asyncio
import json
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pytest

import ts_handlers
from tests.model_dirs import ModelDirs
from ts_handlers.testing import FakeContext, load_handler, predict

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.overlap import OverlapBlock, overlap_table, repack
from bench.side_by_side import SideBySide


def test_an_archive_gets_another_class_on_the_base_it_had(tmp_path: Path) -> None:
    source, target = tmp_path / "old.mar", tmp_path / "new.mar"
    manifest = json.dumps({"model": {"handler": "handler.py"}})
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
        archive.writestr(
            "handler.py", '"""Serves."""\n\nfrom ts_handlers import Some\n\n\nclass Handler(Some):\n    pass\n'
        )
        archive.writestr("model-config.yaml", "handler: {}\n")
        archive.writestr("model.onnx", b"\x00")
    repack(source, target, "class Handler(Base):\n    interleaves = False\n", "asyncCommunication: true\n")
    with zipfile.ZipFile(target) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert content.pop("handler.py") == (
        b"from ts_handlers import Some as Base\n\nclass Handler(Base):\n    interleaves = False\n"
    )
    assert content.pop("model-config.yaml") == b"handler: {}\nasyncCommunication: true\n"
    assert content.pop("side_by_side.py").startswith(b'"""Batches side by side')
    assert content == {"MAR-INF/MANIFEST.json": manifest.encode(), "model.onnx": b"\x00"}


class Texts(SideBySide, ts_handlers.TextClassificationHandler):
    """Text classification, batches side by side; notes how large they are."""

    sizes: ClassVar[list[int]] = []

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        self.sizes.append(len(data))
        return super().preprocess(data)


def test_requests_that_come_one_by_one_are_answered_in_batches(model_dirs: ModelDirs) -> None:
    folder, bodies = model_dirs.get("tiny-distilbert"), [b"one", b"\xff", *[b"a longer text"] * 9]
    handler: Any = load_handler(Texts, folder, {"asyncCommunication": True}, serialized_file="model.onnx")
    expected = predict(
        load_handler(ts_handlers.TextClassificationHandler, folder, {}, serialized_file="model.onnx"), *bodies
    )
    contexts = [FakeContext(folder, request_headers=[{}]) for _ in bodies]

    async def send() -> list[list[bytes]]:
        answers = (handler.handle([{"body": body}], context) for body, context in zip(bodies, contexts, strict=True))
        return list(await asyncio.gather(*answers))

    answers = asyncio.run(send())
    assert [context.statuses.get(0, 200) for context in contexts] == [response.status for response in expected]
    assert answers[1] == [expected[1].body]
    for (answer,), response in zip(answers, expected, strict=True):
        if response.status == 200:
            assert json.loads(answer) == pytest.approx(response.json(), abs=1e-5)
    assert sorted(Texts.sizes) == [3, 8]


def test_the_table_compares_with_batch_by_batch() -> None:
    blocks = [
        OverlapBlock("int8", "batch by batch", 40.0, 100.0, 0),
        OverlapBlock("int8", "batch by batch", 60.0, 200.0, 0),
        OverlapBlock("int8", "batches side by side", 25.0, None, 3),
    ]
    rows = overlap_table(blocks).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        ["int8", "batch by batch", "40.0, 60.0", "50.0", "100%", "150", "0"],
        ["int8", "batches side by side", "25.0", "25.0", "50%", "-", "3"],
    ]
