"""Scores are made once: a model that ends in softmax or sigmoid is found out by what it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.unit.build.images.served import NAMES, PIXELS, WRITERS, Classifier, serve, write_exported, write_onnx
from ts_handlers.build.image_outputs.outputs import read_outputs
from ts_handlers.build.image_outputs.probe import Probe
from ts_handlers.errors import OperatorError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*[Tt]rac"
)  # torch's own, of its exporters


def expected(function: Any) -> dict[str, float]:
    with torch.no_grad():
        return dict(zip(NAMES, function(Classifier().logits(PIXELS)[0]).tolist(), strict=True))


def softmax_by_hand(logits: torch.Tensor) -> torch.Tensor:
    powers = torch.exp(logits - logits.amax(1, keepdim=True))
    return powers / powers.sum(1, keepdim=True)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    ("tail", "function"),
    [
        (lambda logits: logits, torch.nn.Softmax(-1)),
        (torch.nn.Softmax(1), torch.nn.Softmax(-1)),
        (torch.nn.Sigmoid(), torch.nn.Sigmoid()),
    ],
    ids=["none", "softmax", "sigmoid"],
)
def test_scores_are_made_once(tail: Any, function: Any, form: str, given: Path) -> None:
    write, backend = WRITERS[form]
    served = serve(write(given, Classifier(tail)), given, backend=backend)
    assert served.answer() == pytest.approx(expected(function), abs=1e-5)
    assert ("the model ends in a" in " ".join(served.said)) == isinstance(tail, torch.nn.Module)


@pytest.mark.parametrize(
    "tail",
    [
        softmax_by_hand,
        lambda logits: logits.softmax(1).double().float().reshape(-1, 3),
        lambda logits: logits.log_softmax(1),
        lambda logits: logits.softmax(1)[:, :, None, None],
        lambda logits: logits[:, :, None, None],
    ],
    ids=["by hand", "cast and reshaped", "logarithms", "[n, 3, 1, 1]", "logits [n, 3, 1, 1]"],
)
def test_however_the_softmax_is_written(tail: Any, given: Path) -> None:
    served = serve(write_onnx(given, Classifier(tail)), given)
    assert served.answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=1e-5)


@pytest.mark.parametrize("name", ["logits", "probabilities"])
def test_the_outputs_name_says_nothing(name: str, given: Path) -> None:
    path = write_onnx(given, Classifier(torch.nn.Softmax(1)), output_names=[name])
    assert serve(path, given).answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=1e-5)


def test_half_precision(given: Path) -> None:
    path = write_onnx(given, Classifier(torch.nn.Softmax(1)).half(), PIXELS.repeat(2, 1, 1, 1).half())
    assert serve(path, given).answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=2e-3)
    exported = write_exported(given, Classifier().half(), PIXELS.repeat(2, 1, 1, 1).half())
    assert serve(exported, given, backend="torch").answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=2e-3)


@pytest.mark.parametrize("tail", [torch.nn.Sigmoid(), lambda logits: logits, lambda logits: logits.sigmoid()[:, 0]])
def test_a_single_label(tail: Any, given: Path) -> None:
    served = serve(write_onnx(given, Classifier(tail, labels=1)), given, names=("yes",))
    with torch.no_grad():
        assert served.answer() == {"yes": pytest.approx(Classifier(labels=1).logits(PIXELS).sigmoid().item(), abs=1e-5)}


def test_the_function_can_be_set(given: Path) -> None:
    path = write_onnx(given, Classifier(torch.nn.Softmax(1)))
    served = serve(path, given, settings={"output": {"function_to_apply": "sigmoid"}})
    twice = expected(lambda logits: logits.softmax(-1).sigmoid())
    assert served.answer() == pytest.approx(twice, abs=1e-5)
    values = serve(write_onnx(given, Classifier()), given, settings={"output": {"problem_type": "regression"}})
    assert values.answer() == pytest.approx(expected(lambda logits: logits), abs=1e-4)


def test_labels_are_numbers_where_none_are_given(given: Path) -> None:
    served = serve(write_onnx(given, Classifier()), given, names=None)
    assert set(served.answer()) == {"0", "1", "2"}
    assert "no labels were given: they are called by their numbers, 0 to 2" in served.said[0]


@pytest.mark.parametrize("form", WRITERS)
def test_the_output_that_fits_is_taken(form: str, given: Path) -> None:
    class Both(Classifier):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.nn.functional.avg_pool2d(x, 8).flatten(1), self.logits(x)

    write, backend = WRITERS[form]
    served = serve(write(given, Both()), given, backend=backend)
    assert served.answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=1e-5)


def test_a_loss_beside_the_scores_is_left_out(given: Path) -> None:
    served = serve(write_onnx(given, Classifier(lambda logits: (logits.sum(), logits))), given)
    assert served.answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=1e-5)
    assert "is left out" in served.said[0]


@pytest.mark.parametrize(
    ("tail", "names", "message"),
    [
        (
            lambda logits: logits,
            ("a", "b", "c", "d"),
            r"gives 3 scores \(output .* \[1, 3\]\), which is 3 labels, and 4",
        ),
        (lambda logits: (logits, logits + 1), NAMES, "2 of these could be it: call it logits"),
        (
            lambda logits: logits[:, :, None].repeat(1, 1, 2),
            NAMES,
            r"of the shape \[1, 3, 2\]; image-classification needs",
        ),
        (lambda logits: logits.argmax(1), None, "in whole numbers, the index of the best label, say"),
        (lambda logits: logits.argmax(1, keepdim=True).float(), ("a",), r"\[1, 1\] in whole numbers"),
        (lambda logits: (logits.softmax(1) * 255).to(torch.uint8), NAMES, r"\[1, 3\] in whole numbers"),
        (lambda logits: logits.softmax(1) * 100, NAMES, "gives scores that sum to 100 on every picture"),
        (lambda logits: logits.sum(), NAMES, r"gives .* \[\] of one picture"),
    ],
)
def test_what_is_refused(tail: Any, names: tuple[str, ...] | None, message: str, given: Path) -> None:
    with pytest.raises(OperatorError, match=message):
        serve(write_onnx(given, Classifier(tail)), given, names=names)


def read(rows: Any, far: Any = ()) -> Any:
    def outputs(values: Any) -> list[dict[str, Any]]:
        return [{"y": np.asarray([row], np.float32)} for row in values]

    return read_outputs("image-classification", Probe(outputs(rows), outputs(far), takes_pairs=True), None, "m").output


def test_what_shows_that_numbers_are_scores() -> None:
    assert read([[0.2, 0.8], [0.6, 0.4]]) == {"function_to_apply": "none"}
    assert read([[0.2, 0.9], [0.6, 0.4]]) == {
        "function_to_apply": "none",
        "problem_type": "multi_label_classification",
    }
    assert read([[0.2, 0.9], [0.6, 0.4]], far=[[7.0, -3.0]]) == {}, "logits that happen to be small"
    assert read([[0.2, 0.9], [0.2, 0.9]]) == {}, "a constant shows nothing"
    assert read([[0.2, 0.8], [1.2, -0.2]]) == {}
    assert read([[0.2, 0.8], [np.nan, np.inf]]) == {"function_to_apply": "none"}


def test_a_graph_may_say_any_batch_and_take_one(given: Path) -> None:
    path = write_onnx(given, Classifier(lambda logits: logits.reshape(1, -1)), PIXELS)
    model = onnx.load(str(path))
    model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["out_of_one"]))
    model.graph.output[0].name = "out_of_one"
    onnx.save(model, str(path))
    served = serve(path, given)
    assert served.answer() == pytest.approx(expected(torch.nn.Softmax(-1)), abs=1e-5)
    assert "each has a call of its own" in served.said[0]
