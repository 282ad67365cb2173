"""Models that take one picture a call, and what a file says that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.build.images.served import NAMES, PIXELS, WRITERS, Classifier, serve, write_exported, write_script
from ts_handlers.errors import OperatorError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters


def right() -> Any:
    with torch.no_grad():
        scores = Classifier()(PIXELS)[0].softmax(0).tolist()
    return pytest.approx(dict(zip(NAMES, scores, strict=True)), abs=1e-5)


@pytest.mark.parametrize("form", WRITERS)
def test_one_row_a_call(form: str, given: Path) -> None:
    write, backend = WRITERS[form]
    module = Classifier(lambda logits: logits.reshape(1, -1))
    served = serve(write(given, module, PIXELS), given, backend=backend)
    assert served.answer() == right()
    assert served.handler.config.bucketing.max_batch_size == 1


def test_rows_that_change_one_another_are_kept_apart(given: Path) -> None:
    module = Classifier(lambda logits: logits - logits.mean(0, keepdim=True) * 0.5)
    served = serve(write_script(given, module), given)
    with torch.no_grad():
        alone = module(PIXELS)[0].softmax(0).tolist()
    assert served.answer() == pytest.approx(dict(zip(NAMES, alone, strict=True)), abs=1e-5)
    assert "each has a call of its own" in served.said[0]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (PIXELS.repeat(4, 1, 1, 1)[:, :, :, :16], "takes pictures of 16 x 16"),
        (torch.rand(1, 4, 16, 24), "three channels are needed"),
    ],
)
def test_what_an_exported_graph_says_that_it_takes(example: torch.Tensor, message: str, given: Path) -> None:
    class Any4(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    with pytest.raises(OperatorError, match=message):
        serve(write_exported(given, Any4(), example), given)


def test_a_graph_of_four_rows(given: Path) -> None:
    path = given / "four.pt2"
    torch.export.save(torch.export.export(Classifier().eval(), (PIXELS.repeat(4, 1, 1, 1),)), path)
    with pytest.raises(OperatorError, match="takes 4 pictures a call; export it with a dynamic batch, or with 1"):
        serve(path, given)


@pytest.mark.parametrize("form", WRITERS)
def test_channels_last(form: str, given: Path) -> None:
    class Last(Classifier):
        def forward(self, x: torch.Tensor) -> Any:
            return self.logits(x.permute(0, 3, 1, 2))

    write, backend = WRITERS[form]
    served = serve(write(given, Last(), PIXELS.permute(0, 2, 3, 1).repeat(2, 1, 1, 1)), given, backend=backend)
    assert served.answer() == right()


def test_the_reason_of_a_failure_is_said(given: Path) -> None:
    class Wider(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(48, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(torch.nn.functional.avg_pool2d(x, 8).flatten(1))

    path = write_script(given, Wider(), torch.rand(2, 3, 32, 32))
    with pytest.raises(OperatorError, match=r"given as \[1, 3, 16, 24\].*mat1 and mat2 shapes cannot be multiplied"):
        serve(path, given)
