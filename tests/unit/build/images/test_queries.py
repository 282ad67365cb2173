"""Two outputs are DETR's where they are called so, or where nothing else fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.build.images.served import PIXELS, WRITERS, serve, write_exported, write_onnx, write_script
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.boxes import format_detections, from_queries

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters

TASK, NAMES, SIZE = "object-detection", ("cat", "dog", "cup"), (16, 24)


class Queries(torch.nn.Module):
    """Numbers of five queries and their boxes, and what is made of them."""

    def __init__(self, labels: int, tail: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.labels, self.tail = labels, tail
        self.scores, self.boxes = torch.nn.Linear(18, 5 * labels), torch.nn.Linear(18, 20)
        for part in (self.scores, self.boxes):
            part.weight.data *= 6

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.nn.functional.avg_pool2d(x, 8).flatten(1)
        return self.scores(found).reshape(-1, 5, self.labels), self.boxes(found).sigmoid().reshape(-1, 5, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.tail(*self.parts(x))


def expected(labels: int) -> list[dict[str, Any]]:
    with torch.no_grad():
        scores, boxes = (part[0].numpy() for part in Queries(labels, lambda *_: None).parts(PIXELS))
    found = format_detections(from_queries(scores, boxes, 3), NAMES, SIZE, threshold=0.5, top_k=None)
    assert len(found) > 1
    return found


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [list(item) for item in ours] == [list(item) for item in theirs]
    for mine, right in zip(ours, theirs, strict=True):
        label = next(iter(right))
        assert mine["score"] == pytest.approx(right["score"], abs=1e-5)
        assert mine[label] == pytest.approx(right[label], abs=1e-3)


@pytest.mark.parametrize("labels", [3, 4])
@pytest.mark.parametrize("form", [name for name in WRITERS if name != "onnx"])
@pytest.mark.parametrize("name", ["logits", "pred_logits"])
def test_outputs_that_are_called_so(name: str, form: str, labels: int, given: Path) -> None:
    write, backend = WRITERS[form]
    module = Queries(labels, lambda scores, boxes: {"pred_boxes": boxes, name: scores, "aux": boxes * 2})
    served = serve(write(given, module), given, TASK, names=NAMES, backend=backend)
    (answer,) = [response.json() for response in served.ask()]
    assert_same(answer, expected(labels))


@pytest.mark.parametrize("write", [write_onnx, write_script, write_exported])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_values_that_leave_no_doubt(write: Any, is_reversed: bool, given: Path) -> None:
    module = Queries(3, lambda *parts: parts[::-1] if is_reversed else parts)
    served = serve(write(given, module), given, TASK, names=NAMES)
    (answer,) = [response.json() for response in served.ask()]
    assert_same(answer, expected(3))
    assert "are read as DETR's logits and pred_boxes" in served.said[0]


@pytest.mark.parametrize(("labels", "function"), [(3, torch.sigmoid), (4, torch.nn.Softmax(-1))])
def test_scores_that_are_scores_already(labels: int, function: Any, given: Path) -> None:
    module = Queries(labels, lambda scores, boxes: (function(scores), boxes))
    path = write_onnx(given, module, output_names=["logits", "pred_boxes"])
    served = serve(path, given, TASK, names=NAMES)
    (answer,) = [response.json() for response in served.ask()]
    assert_same(answer, expected(labels))
    assert "They are the scores" in served.said[0]


def corners(boxes: torch.Tensor) -> torch.Tensor:
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1).clamp(0, 1)


@pytest.mark.parametrize(
    ("labels", "tail", "outputs", "names", "message"),
    [
        (4, lambda scores, boxes: (scores.softmax(-1), corners(boxes)), ["scores", "boxes"], NAMES, "call them so"),
        (3, lambda scores, boxes: (scores, corners(boxes)), ["a", "b"], NAMES, "call them so"),
        (4, lambda scores, boxes: (scores, boxes), ["a", "b"], NAMES, r"a \[1, 5, 4\], b \[1, 5, 4\]"),
        (
            6,
            lambda scores, boxes: (scores, boxes),
            ["logits", "pred_boxes"],
            NAMES,
            "is 6 labels, and 3 labels are named",
        ),
        (
            4,
            lambda scores, boxes: (scores, boxes),
            ["logits", "pred_boxes"],
            None,
            "4 labels, or 3 and one for no object",
        ),
        (4, lambda scores, boxes: (scores, boxes * 640), ["logits", "pred_boxes"], NAMES, "gives pred_boxes from"),
        (3, lambda scores, boxes: (scores, boxes[..., :2]), ["logits", "pred_boxes"], NAMES, r"pred_boxes \[1, 5, 2\]"),
        (3, lambda scores, boxes: torch.cat([scores, boxes], -1), ["output0"], NAMES, r"output0 \[1, 5, 7\]"),
    ],
)
def test_what_is_refused(labels: int, tail: Any, outputs: list[str], names: Any, message: str, given: Path) -> None:
    path = write_onnx(given, Queries(labels, tail), output_names=outputs)
    with pytest.raises(OperatorError, match=message) as caught:
        serve(path, given, TASK, names=names)
    assert "--" in str(caught.value), "what to do"


def test_a_handler_of_ones_own_reads_what_it_likes(given: Path) -> None:
    path = write_onnx(given, Queries(3, lambda scores, boxes: torch.cat([scores, boxes], -1)), output_names=["output0"])
    served = serve(path, given, TASK, names=NAMES, handler=given / "own.py")
    assert served.handler.session.run({"pixel_values": PIXELS.numpy()})["output0"].shape == (1, 5, 7)
    assert "the outputs output0 are left to --handler" in served.said[0]
    script = write_script(given, Queries(3, lambda scores, boxes: (torch.cat([scores, boxes], -1), [boxes])))
    for backend in ("onnx", "torch"):
        served = serve(script, given, TASK, names=NAMES, handler=given / "own.py", backend=backend)
        assert list(served.handler.session.run({"pixel_values": PIXELS.numpy()})) == ["output_0"]


def test_a_handler_of_ones_own_gets_all_outputs(given: Path) -> None:
    module = Queries(3, lambda scores, boxes: {"logits": scores, "pred_boxes": boxes, "features": boxes.sum(-1)})
    for backend in ("onnx", "torch"):
        served = serve(write_script(given, module), given, TASK, names=NAMES, handler=given / "own.py", backend=backend)
        found = served.handler.session.run({"pixel_values": PIXELS.numpy()})
        assert {name: array.shape for name, array in found.items()} == {
            "logits": (1, 5, 3),
            "pred_boxes": (1, 5, 4),
            "features": (1, 5),
        }
