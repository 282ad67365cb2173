from __future__ import annotations

import math
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ts_handlers.build.gate import Limits, Quality
from ts_handlers.build.quantize.sensitivity import Layer, bundle, rank, search, with_margin
from ts_handlers.errors import OperatorError


class FakeModel:
    """A model whose layers each cost their own part of the cosine when they are quantized."""

    def __init__(self, harms: dict[str, float]) -> None:
        self.harms = harms
        self.asked: list[frozenset[str]] = []

    def __call__(self, kept: Collection[str]) -> Quality:
        self.asked.append(frozenset(kept))
        loss = sum(harm for name, harm in self.harms.items() if name not in kept)
        return Quality(10, 1 - loss, 1 - 2 * loss)


HARMS = {"a": 0.001, "b": 0.004, "c": 0.0005, "d": 0.002}
LAYERS = [Layer((name,), 1) for name in HARMS]


def limits(allowed: float) -> Limits:
    """Return limits of which, with the margin, this loss of the mean is left."""
    return Limits(min_mean_cosine=1 - allowed / 0.8, min_cosine=-1)


def find(layers: list[Layer], model: FakeModel, allowed: Limits) -> tuple[tuple[str, ...], Quality]:
    return search(layers, model, allowed, evaluate_alone=model, progress=lambda _: None)


def test_layers_are_ranked_by_harm_for_their_cost() -> None:
    assert [layer.names[0] for layer in rank(LAYERS, FakeModel(HARMS))] == ["b", "d", "a", "c"]
    dear = [Layer(("a",), 1), Layer(("b",), 9), Layer(("c",), 1), Layer(("d",), 1)]
    assert [layer.names[0] for layer in rank(dear, FakeModel(HARMS))] == ["d", "a", "c", "b"]


def test_each_is_measured_alone() -> None:
    model = FakeModel(HARMS)
    rank(LAYERS, model)
    assert [set(HARMS) - kept for kept in model.asked] == [{"a"}, {"b"}, {"c"}, {"d"}]


@pytest.mark.parametrize(("allowed", "kept"), [(0.0036, "b"), (0.0016, "bd"), (0.0006, "bda"), (0.0001, "bdac")])
def test_no_more_are_kept_than_are_needed(allowed: float, kept: str) -> None:
    found = find(LAYERS, FakeModel(HARMS), limits(allowed))
    assert found == (tuple(kept), FakeModel(HARMS)(kept))


def test_none_is_kept_at_one_evaluation_where_none_is_needed() -> None:
    model = FakeModel(HARMS)
    found = find(LAYERS, model, limits(0.01))
    assert (found[0], model.asked) == ((), [frozenset()])


def test_the_worst_sample_counts_too() -> None:
    strict = Limits(min_mean_cosine=0, min_cosine=1 - 0.008 / 0.8)
    assert find(LAYERS, FakeModel(HARMS), strict)[0] == ("b",)


def test_limits_that_cannot_hold_are_said() -> None:
    model = FakeModel(HARMS | {"outside": 0.1})
    with pytest.raises(
        OperatorError, match=r"with all 4 layers kept: mean cosine 0.9000 on 10 samples; 0.9984 is needed"
    ):
        find(LAYERS, model, Limits())
    with pytest.raises(OperatorError, match="with all 0 layers kept"):
        find([], model, Limits())


def test_ranking_may_have_an_evaluation_of_its_own_and_says_what_is_found() -> None:
    quick, whole, said = FakeModel(HARMS), FakeModel(HARMS), list[str]()
    search(LAYERS, whole, limits(0.0016), evaluate_alone=quick, progress=said.append)
    assert len(quick.asked) == 4
    assert "measuring each layer alone" in said[0]
    assert said[-1] == "  1 layers kept: mean cosine 0.9965 on 10 samples; 0.9984 is needed"
    assert any(line == "  2 layers kept: enough" for line in said)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-5, 1e-2), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_evaluations_are_few_and_one_layer_fewer_would_fail(harms: list[float], share: float) -> None:
    model = FakeModel({str(index): harm for index, harm in enumerate(harms)})
    allowed = sum(harms) * share
    names, quality = find([Layer((name,), 1) for name in model.harms], model, limits(allowed))
    num_layers = min(len(harms), 48)
    assert len(model.asked) <= num_layers + math.ceil(math.log2(num_layers)) + 2
    assert 1 - quality.mean_cosine <= allowed + 1e-9
    if len(harms) == num_layers:
        assert 1 - model(names[:-1]).mean_cosine > allowed - 1e-9


def test_of_a_deep_model_neighbours_are_measured_together() -> None:
    model = FakeModel({str(index): 0.001 for index in range(100)})
    names, _ = find([Layer((name,), 1) for name in model.harms], model, limits(0.0505))
    assert len(model.asked) <= 48 + 6 + 2
    assert 50 <= len(names) <= 52


def test_neighbours_go_together() -> None:
    layers = [Layer((str(index),), index) for index in range(5)]
    assert bundle(layers, 2) == [Layer(("0", "1"), 1), Layer(("2", "3", "4"), 9)]
    assert bundle(layers, 9) == layers
    assert bundle([], 3) == []


def test_the_margin_is_a_share_of_what_may_be_lost() -> None:
    found = with_margin(Limits(1.0, 0.99, 0.9), 0.5)
    assert (found.max_accuracy_drop, found.min_mean_cosine, found.min_cosine) == pytest.approx((0.5, 0.995, 0.95))
    assert with_margin(Limits(-1.0)).max_accuracy_drop == -1.0
