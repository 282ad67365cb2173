from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.unit.build.graphs import product
from ts_handlers.build.quantize.int8 import quantize_dynamic
from ts_handlers.build.quantize.rounding import LEVELS, REDUCED_LEVELS, round_weights
from ts_handlers.shapes import Array

RNG = np.random.default_rng(6)


def weights_and_activations(channels: int = 300, outputs: int = 12) -> tuple[Array, Array]:
    """Make weights, and activations whose channels go together, as a transformer's do."""
    mixing = RNG.normal(size=(20, channels)) * np.exp(RNG.normal(size=channels) / 4)
    activations = RNG.normal(size=(600, 20)) @ mixing + 0.1 * RNG.normal(size=(600, channels))
    return RNG.normal(size=(channels, outputs)).astype(np.float32), activations.astype(np.float32)


def nearest(weights: Array, levels: int) -> Array:
    scales = np.abs(weights).max(axis=0) / levels
    return np.asarray(np.rint(weights / scales) * scales)


@pytest.mark.parametrize("levels", [LEVELS, REDUCED_LEVELS])
def test_products_are_nearer_than_by_nearest_rounding(levels: int) -> None:
    weights, x = weights_and_activations()
    rounded = round_weights(weights, x.T @ x, levels)
    error, usual = (np.linalg.norm(x @ w - x @ weights) for w in (rounded, nearest(weights, levels)))
    assert error < usual / 2


@pytest.mark.parametrize("levels", [LEVELS, REDUCED_LEVELS])
def test_weights_are_integers_times_the_scale_that_a_quantizer_takes(levels: int) -> None:
    weights, x = weights_and_activations()
    rounded = round_weights(weights, x.T @ x, levels)
    scales = np.abs(weights).max(axis=0) / levels
    np.testing.assert_allclose(np.abs(rounded).max(axis=0), np.abs(weights).max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(rounded / scales, np.rint(rounded / scales), atol=1e-3)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_the_quantizer_adds_no_error(reduce_range: bool, tmp_path: Path) -> None:
    weights, x = weights_and_activations()
    rounded = round_weights(weights, x.T @ x, REDUCED_LEVELS if reduce_range else LEVELS)
    path = product(tmp_path / "fp32.onnx", rounded)
    quantize_dynamic(onnx.load(str(path)), tmp_path / "int8.onnx", reduce_range=reduce_range)
    arrays = {
        item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer
    }
    restored = arrays["w_quantized"].astype(np.float32) * arrays["w_scale"]
    np.testing.assert_allclose(restored, rounded, atol=1e-5)


def test_channels_and_outputs_of_zeros() -> None:
    weights, x = weights_and_activations(24, 3)
    weights[:, 1], x[:, 5] = 0, 0
    rounded = round_weights(weights, x.T @ x)
    assert np.isfinite(rounded).all()
    assert not rounded[:, 1].any()
    assert np.array_equal(round_weights(np.zeros((4, 2), np.float32), np.zeros((4, 4), np.float32)), np.zeros((4, 2)))


def test_the_same_inputs_give_the_same_weights() -> None:
    weights, x = weights_and_activations()
    assert np.array_equal(round_weights(weights, x.T @ x), round_weights(weights, x.T @ x))
