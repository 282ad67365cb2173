"""The gate's arithmetic, on engines made for it; real engines are in test_choose.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.gate import Answers, Limits, Quality, Reference, measure_latencies
from ts_handlers.build.gate import quality as quality_module
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuShare
from ts_handlers.shapes import Array

CALLS = ModelCalls(BucketingConfig(), {}, ())
RIGHT, WRONG = 0, 1


class Engine:
    """Returns what a function makes of the first id of each sequence."""

    max_parallel = 1
    runs_on_device = False

    def __init__(self, logits: Callable[[int], list[float]], log: list[str] | None = None, name: str = "") -> None:
        self._logits, self._log, self._name = logits, log, name

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        del num_parallel
        if self._log is not None and (not self._log or self._log[-1] != self._name):
            self._log.append(self._name)
        return {"logits": np.array([self._logits(int(row[0])) for row in arrays["input_ids"]], dtype=np.float32)}

    def change_threads(self, share: CpuShare) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        return self._name


def inputs(number: int) -> list[ModelInput]:
    """Return sequences of lengths 3, 4, 5 and so on, each beginning with its index."""
    return [
        ModelInput({"input_ids": np.array([index] + [9] * (2 + index), dtype=np.int64)}, 3 + index)
        for index in range(number)
    ]


def sure(index: int) -> list[float]:
    """Logits of the right label of an even or odd sample."""
    return [4.0, -4.0] if index % 2 == 0 else [-4.0, 4.0]


def labelled(number: int, engine: Engine | None = None) -> Reference:
    labels = [index % 2 for index in range(number)]
    return Reference(Answers("text-classification", {}, 2), inputs(number), engine or Engine(sure), CALLS, labels)


def outputs_of(**arrays: Any) -> dict[str, Array]:
    return {name: np.array(value, dtype=np.float32) for name, value in arrays.items()}


def test_scores_of_images_are_the_model_s_own_where_it_makes_them() -> None:
    scores = {"logits": np.array([[[0.25]], [[0.75]]], np.float32)}
    answers = Answers("image-classification", {"function_to_apply": "none"}, 2)
    assert answers.of(scores).tolist() == [[0.25, 0.75]]
    assert answers.decision(answers.of(scores)) == (1,)
    several = Answers(
        "image-classification", {"function_to_apply": "none", "problem_type": "multi_label_classification"}, 2
    )
    assert several.of(scores).tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert several.decision(several.of(scores)) == (0, 1)


def test_pixels_are_judged_by_the_scores_of_their_labels() -> None:
    plane = np.array([[0.0, 2.0]], np.float32)
    for pixels, right in (
        ("probability", [[1, 0], [-1, 2]]),
        ("index", [[1, 0, 0], [0, 0, 1]]),
        ("logit", [[0.5, 0.5], [1 / (1 + np.e**2), 1 / (1 + np.e**-2)]]),
    ):
        answers = Answers("image-segmentation", {"pixels": pixels}, 3)
        np.testing.assert_allclose(answers.of({"logits": plane}), right, rtol=1e-6)
    logits = np.array([[[1.0, 2.0]], [[3.0, 2.0]]], np.float32)
    first, last = (Answers("image-segmentation", {"pixels": pixels}, 2) for pixels in ("labels", "labels_last"))
    np.testing.assert_allclose(first.of({"logits": logits}), last.of({"logits": np.moveaxis(logits, 0, -1)}))


def test_what_another_handler_reads_is_not_judged() -> None:
    with pytest.raises(OperatorError, match="gives output0, and answers are judged by logits; leave out --evaluation"):
        Answers("image-classification", {}, 2).of({"output0": np.zeros(2)})


def test_a_classifier_is_seen_by_its_probabilities() -> None:
    answers = Answers("text-classification", {}, 2)
    answer = answers.of(outputs_of(logits=[0.0, math.log(3)]))
    assert answer == pytest.approx(np.array([[0.25, 0.75]]))
    assert answers.decision(answer) == (1,)


def test_many_labels_are_decided_one_by_one() -> None:
    answers = Answers("text-classification", {"problem_type": "multi_label_classification"}, 3)
    answer = answers.of(outputs_of(logits=[2.0, -2.0, 0.1]))
    assert answer[0, 0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert answers.decision(answer) == (1, 0, 1)


def test_a_regression_is_seen_as_it_is_and_decides_nothing() -> None:
    answers = Answers("text-classification", {"problem_type": "regression"}, 1)
    answer = answers.of(outputs_of(logits=[-3.5]))
    assert answer.tolist() == [[-3.5]]
    assert answers.decision(answer) is None


def test_tokens_are_decided_each() -> None:
    answers = Answers("token-classification", {}, 2)
    answer = answers.of(outputs_of(logits=[[3.0, 0.0], [0.0, 3.0]]))
    assert answer.sum(axis=-1) == pytest.approx([1, 1])
    assert answers.decision(answer) == (0, 1)


def test_a_span_is_decided_by_its_ends() -> None:
    answers = Answers("question-answering", {})
    answer = answers.of(outputs_of(start_logits=[0.0, 5.0, 0.0], end_logits=[0.0, 0.0, 5.0]))
    assert answer.shape == (2, 3)
    assert answers.decision(answer) == (1, 2)


def test_an_embedding_is_pooled_as_the_archive_says() -> None:
    hidden = outputs_of(last_hidden_state=[[3.0, 0.0], [3.0, 8.0]])
    assert Answers("feature-extraction", {}).of(hidden).tolist() == [[3.0, 4.0]]
    normalized = Answers("feature-extraction", {"normalize": True})
    assert normalized.of(hidden) == pytest.approx(np.array([[0.6, 0.8]]))
    assert normalized.decision(normalized.of(hidden)) is None


def test_the_reference_itself_is_perfect() -> None:
    quality = labelled(10).quality(Engine(sure), CALLS)
    assert quality == Quality(10, 1.0, 1.0, agreement=100.0, accuracy=100.0, reference_accuracy=100.0)
    assert quality.accuracy_drop == 0
    assert Limits().failures(quality) == []


def test_each_wrong_sample_costs_its_share() -> None:
    wrong_on_three = Engine(lambda index: sure(index + 1) if index == 3 else sure(index))
    quality = labelled(10).quality(wrong_on_three, CALLS)
    assert (quality.accuracy, quality.agreement) == (90.0, 90.0)
    assert quality.min_cosine < 0.01
    assert quality.mean_cosine == pytest.approx(0.9, abs=0.01)
    [failure] = Limits().failures(quality)
    assert failure == "accuracy 90.00 % on 10 samples, 10.00 points below fp32's 100.00 %; allowed are 0.5"
    assert Limits(max_accuracy_drop=10).failures(quality) == []


def test_accuracy_may_rise() -> None:
    unsure = Engine(lambda index: sure(index + 1) if index == 3 else sure(index))
    quality = labelled(10, unsure).quality(Engine(sure), CALLS)
    assert quality.accuracy_drop == pytest.approx(-10)
    assert Limits(max_accuracy_drop=0).failures(quality) == []


@pytest.mark.parametrize(
    ("mean", "worst", "words"),
    [(0.999, 0.99, []), (0.9979, 0.995, ["mean"]), (0.999, 0.98, ["worst"]), (math.nan, math.nan, ["mean", "worst"])],
)
def test_without_labels_cosines_decide(mean: float, worst: float, words: list[str]) -> None:
    failures = Limits().failures(Quality(100, mean, worst, agreement=10.0))
    assert [failure.split()[0] for failure in failures] == words


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(number: float) -> None:
    broken = Engine(lambda index: [number, 0.0] if index == 2 else sure(index))
    with pytest.raises(OperatorError, match="not finite"):
        labelled(4).quality(broken, CALLS)


def test_an_engine_that_fails_says_on_what() -> None:
    def fail(index: int) -> list[float]:
        if index == 2:
            raise ValueError("no room")
        return sure(index)

    with pytest.raises(OperatorError, match="fails on a sample of 5 tokens: no room"):
        labelled(4).quality(Engine(fail), CALLS)


def test_engines_are_timed_in_turns_at_lengths_of_the_data() -> None:
    log: list[str] = []
    engines = {name: (Engine(sure, log, name), CALLS) for name in ("a", "b")}
    found = measure_latencies(engines, inputs(11), rounds=3)
    assert log == ["a", "b"] * 4  # one round warms up
    assert list(found) == ["a", "b"]
    assert list(found["a"].ms_by_shape) == ["1x4", "1x8", "1x12", "8x4", "8x8", "8x12"]
    assert found["b"].ms_per_sample > 0


def test_an_engine_that_fails_while_it_is_timed_is_an_error() -> None:
    def fail(index: int) -> list[float]:
        raise ValueError(f"sample {index} is too many")

    with pytest.raises(OperatorError, match="fails while it is timed: sample 0 is too many"):
        measure_latencies({"a": (Engine(fail), CALLS)}, inputs(1), rounds=1)


def test_a_single_number_is_judged_by_its_error_and_not_by_its_sign() -> None:
    one_label = Answers("text-classification", {}, 1)
    sure, unsure = (one_label.of({"logits": np.array([value])}) for value in (3.0, -3.0))
    assert quality_module._cosine(sure, unsure) < 0.2
    assert (one_label.decision(sure), one_label.decision(unsure)) == ((1,), (0,))
    rated = Answers("text-classification", {"problem_type": "regression"}, 1)
    expected = [rated.of({"logits": np.array([value])}) for value in (1.0, 2.0, 3.0)]
    near = [rated.of({"logits": np.array([value])}) for value in (1.0, 2.1, 3.0)]
    far = [rated.of({"logits": np.array([value])}) for value in (1.0, 400.0, 3.0)]
    assert min(quality_module._cosines(near, expected)) > 0.998
    assert min(quality_module._cosines(far, expected)) == -1


def test_labels_that_apply_or_not_are_compared_one_by_one() -> None:
    labels = Answers("text-classification", {"problem_type": "multi_label_classification"}, 3)
    none, all_of_them = (labels.of({"logits": np.full(3, value)}) for value in (-9.0, 5.0))
    assert quality_module._cosine(none, all_of_them) < 0.1


@pytest.mark.parametrize(
    "limits", [{"min_mean_cosine": 99.8}, {"min_cosine": math.nan}, {"max_accuracy_drop": math.inf}]
)
def test_limits_that_are_none(limits: dict[str, float]) -> None:
    with pytest.raises(OperatorError, match=r"--m.* is .*; give a number from -?1"):
        Limits(**limits)


def test_a_regression_of_several_numbers_is_judged_by_their_errors() -> None:
    def values(index: int) -> list[float]:
        return [index - 10.0, 2 * index]

    answers = Answers("text-classification", {"problem_type": "regression"}, 2)
    reference = Reference(answers, inputs(20), Engine(values), CALLS)
    near = reference.quality(Engine(lambda index: [value + 0.1 for value in values(index)]), CALLS)
    assert Limits().failures(near) == []
    assert near.agreement is None
    twice = reference.quality(Engine(lambda index: [2 * value for value in values(index)]), CALLS)
    assert len(Limits().failures(twice)) == 2


def test_numbers_that_are_none_say_what_to_do() -> None:
    broken = Engine(lambda index: [math.nan, 0.0] if index == 2 else sure(index))
    with pytest.raises(OperatorError, match="on a sample of 5 tokens; take another precision, or leave the sample out"):
        labelled(4).quality(broken, CALLS)


def test_of_engines_that_are_timed_one_may_fail() -> None:
    def fail(index: int) -> list[float]:
        raise ValueError(f"sample {index} is too many")

    failures: dict[str, str] = {}
    engines = {"a": (Engine(fail), CALLS), "b": (Engine(sure), CALLS)}
    assert list(measure_latencies(engines, inputs(1), rounds=1, failures=failures)) == ["b"]
    assert failures == {"a": "the engine fails while it is timed: sample 0 is too many"}
