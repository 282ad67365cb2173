"""The check before a model is archived, and what its calls take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ts_handlers.build import check
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.samples import Sample, encode
from ts_handlers.build.sources.texts import Source, load_source
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuShare
from ts_handlers.shapes import Array

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs


@pytest.fixture(scope="module")
def source(model_dirs: ModelDirs) -> Source:
    return load_source(str(model_dirs.checkpoint("tiny-distilbert")), "text-classification")


class FakeSession:
    """Returns one number for every logit, and remembers the shapes of its calls."""

    max_parallel = 1
    runs_on_device = False

    def __init__(self, number: float) -> None:
        self._number = number
        self.shapes: list[tuple[int, ...]] = []

    def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
        del num_parallel
        self.shapes.append(arrays["input_ids"].shape)
        return {"logits": np.full((len(arrays["input_ids"]), 2), self._number)}

    def change_threads(self, share: CpuShare) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        return "fake"


@pytest.mark.parametrize(
    ("precision", "number", "message"),
    [
        ("int8", math.nan, "not finite; build it as fp32$"),
        ("fp32", math.nan, "not finite; take another --backend$"),
        ("int8", 1e3, "; build as fp32, or allow it with --tolerance$"),
        ("fp32", 1e3, "; take another --backend$"),
    ],
)
def test_what_to_do_is_never_what_was_done(source: Source, precision: str, number: float, message: str) -> None:
    samples, calls = [encode(source, Sample("a text"))], source.calls(BucketingConfig())
    with pytest.raises(OperatorError, match=message):
        check.check_build(source, FakeSession(number), calls, samples, precision, None)


def test_what_an_engine_says_is_quoted_to_its_last_line(source: Source) -> None:
    class Failing(FakeSession):
        def run(self, arrays: Mapping[str, Array], *, num_parallel: int = 1) -> dict[str, Array]:
            raise RuntimeError("INVALID_ARGUMENT: Got invalid dimensions\n index: 1 Got: 3 Expected: 5")

    samples, calls = [encode(source, Sample("a text"))], source.calls(BucketingConfig())
    with pytest.raises(
        OperatorError, match="RuntimeError: INVALID_ARGUMENT.* index: 1 Got: 3 Expected: 5; take another"
    ):
        check.check_build(source, Failing(0), calls, samples, "fp32", None)


def test_latency_is_of_the_calls_that_a_worker_makes(source: Source) -> None:
    session = FakeSession(0)
    bucketing = BucketingConfig(boundaries=(16, 32), group_sizes=(1, 4), max_batch_size=4)
    table = check.latency_table(session, source.calls(bucketing), source)
    assert list(table) == ["1x24", "8x24"]
    assert set(session.shapes) == {(1, 32), (4, 32)}
    real = check.latency_table(SourceSession(source), source.calls(BucketingConfig()), source)
    assert all(latency > 0 for latency in real.values())
