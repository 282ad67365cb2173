"""From a request to one engine: made at once, or, where there is data for the gate, measured and chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ts_handlers.build.candidates import Candidates, candidates
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Reference
from ts_handlers.build.inputs import open_dataset
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.reference import SourceSession, make_reference
from ts_handlers.build.request import AUTO, BuildRequest
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sections import handler_section
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.steps import step
from ts_handlers.build.target import is_here
from ts_handlers.build.trial import Trial, Trials, fastest
from ts_handlers.build.trial_table import trial_table
from ts_handlers.calls import ModelCalls
from ts_handlers.config import BucketingConfig, load_config
from ts_handlers.cpu import CpuBudget, cpu_budget, cpu_share
from ts_handlers.errors import OperatorError
from ts_handlers.outputs import default_function
from ts_handlers.runtime import ModelFiles, Session, open_session

MAX_SAMPLES = 2000
"""Samples without labels that engines are compared on, spread over the file; of labelled ones all are taken."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of a build, and what it was measured against.

    Attributes:
        method: How it was made.
        engine: The engine.
        trials: What was tried; empty where there was no data to judge by.
        left_out: Methods that were not tried -> why.
    """

    method: Method
    engine: Engine
    trials: tuple[Trial, ...] = ()
    left_out: Mapping[str, str] | None = None

    def details(self) -> dict[str, Any]:
        """Return what the build report says of the choice."""
        if not self.trials:
            return {}
        return {"trials": [trial.as_dict() for trial in self.trials], "left_out": dict(self.left_out or {})}


@dataclass(frozen=True, slots=True)
class Data:
    """What is calibrated on, and what is judged on: never the same samples.

    Attributes:
        calibration: Samples whose activations may be measured.
        evaluation: Samples to judge by.
        is_labelled: Whether accuracy is judged.
    """

    calibration: Dataset | None
    evaluation: Dataset | None
    is_labelled: bool = False


def open_data(request: BuildRequest, source: ModelSource) -> Data:
    """Open the files of samples. From a calibration file alone each fifth sample is kept to judge by.

    Raises:
        OperatorError: A file cannot be read, or has too few samples.
    """
    calibration = request.calibration and open_dataset(source, request.calibration)
    if request.evaluation is not None:
        if request.calibration is not None and request.calibration.resolve() == request.evaluation.resolve():
            raise OperatorError(
                f"--calibration and --evaluation are both {request.evaluation}, and what is judged on must not be "
                "calibrated on; give --calibration alone, of which every fifth sample judges, or two files"
            )
        evaluation = open_dataset(source, request.evaluation, is_judged=True)
        return Data(calibration or None, evaluation, _has_one_label(source))
    if not calibration:
        return Data(None, None)
    if len(calibration) < 2:
        raise OperatorError(f"{request.calibration} has one sample; give more: some calibrate, some judge")
    return Data(*calibration.split())


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Leave torch with as many threads as it had: an `Opener` gives it one."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch_threads_kept()
def choose(request: BuildRequest, material: Material, data: Data, section: Mapping[str, Any]) -> Chosen:
    """Make the engine.

    Args:
        request: What was asked for.
        material: What engines are made from.
        data: What they are judged by.
        section: The `handler:` section without the engine's part.

    Raises:
        OperatorError: No engine can be made, or none passes the gate.
    """
    open_to = candidates(request)
    engines = material.work / "engines"
    engines.mkdir()
    if data.evaluation is None:
        method = open_to.methods[0]
        return Chosen(method, method.make(material, engines))
    opener = Opener(request, material.model_source, section)
    reference = _reference(material, data, section, opener)
    trials = Trials(material, reference, request.limits, opener, engines).run(_with_baseline(open_to))
    wanted = [trial for trial in trials if trial.method in open_to.methods]
    try:
        best = _worth_its_loss(fastest(wanted), trials, request, material)
    except OperatorError:
        material.progress(trial_table(trials))
        raise
    material.progress(trial_table(trials, best))
    _say_if_slower(best, trials, material)
    return _chosen(best, trials, open_to)


class Opener:
    """Opens an engine as a worker with one thread will."""

    def __init__(self, request: BuildRequest, source: ModelSource, section: Mapping[str, Any]) -> None:
        self._request, self._source, self._section = request, source, section

    def __call__(self, engine: Engine) -> tuple[Session, ModelCalls]:
        """Return its session, and how sequences share its calls."""
        whole = handler_section(self._request, self._section, engine)
        config = load_config({"handler": {name: whole[name] for name in ("runtime", "bucketing") if name in whole}})
        torch.set_num_threads(1)
        model_file = engine.model_file.name if engine.model_file is not None else None
        files = ModelFiles(engine.serialized_file.parent, engine.serialized_file.name, model_file)
        calls = self.calls(config.bucketing)
        return open_session(config.runtime, files, cpu_share(CpuBudget((0,)), 1, threads=1), calls.shapes), calls

    def calls(self, bucketing: BucketingConfig) -> ModelCalls:
        """Return how sequences share calls."""
        return self._source.calls(bucketing)


def _reference(material: Material, data: Data, section: Mapping[str, Any], opener: Opener) -> Reference:
    if data.evaluation is None:
        raise OperatorError("there is nothing to judge by; give --evaluation FILE")
    source = material.model_source
    labels = data.evaluation.labels if data.is_labelled else None
    inputs = list(data.evaluation) if data.is_labelled else data.evaluation.spread(MAX_SAMPLES)
    torch.set_num_threads(max(1, int(cpu_budget().cpus)))
    with step(material.progress, f"run the source on {len(inputs)} samples"):
        calls = opener.calls(BucketingConfig())
        return make_reference(source, section.get("output", {}), inputs, SourceSession(source), calls, labels)


def _with_baseline(open_to: Candidates) -> Sequence[Method]:
    """Add ONNX Runtime in fp32, so that what was asked for is seen beside it."""
    baseline = find_method("onnx", "fp32", None)
    return open_to.methods if baseline in open_to.methods else (*open_to.methods, baseline)


def _worth_its_loss(best: Trial, trials: Sequence[Trial], request: BuildRequest, material: Material) -> Trial:
    """Return the chosen trial, or fp32's where INT8 is not faster: it would cost accuracy and gain nothing.

    Who names the quantizer gets it all the same, and so does who builds for another CPU than the one that measures.
    """
    if best.method.quantizer is None or request.quantizer not in (None, AUTO) or not is_here(request.target_cpu):
        return best
    baseline = next(trial for trial in trials if trial.method == find_method("onnx", "fp32", None))
    if baseline.failures or baseline.latency is None or best.latency is None:
        return best
    if best.latency.ms_per_sample < baseline.latency.ms_per_sample:
        return best
    material.progress(
        f"{best.method.name} passes and is not faster than {baseline.method.name} on this machine: fp32 is built. Name "
        f"--quantizer {best.method.quantizer} to have it for its size"
    )
    return baseline


def _say_if_slower(best: Trial, trials: Sequence[Trial], material: Material) -> None:
    """An engine that was asked for by name is built, but not without a word where fp32 is as fast."""
    for trial in trials:
        if trial is best or trial.latency is None or best.latency is None or trial.failures:
            continue
        if trial.latency.ms_per_sample <= best.latency.ms_per_sample:
            material.progress(f"note: {best.method.name} is not faster than {trial.method.name} on this machine")


def _chosen(best: Trial, trials: Sequence[Trial], open_to: Candidates) -> Chosen:
    if best.engine is None:
        raise OperatorError(f"{best.method.name} was not made")
    return Chosen(best.method, best.engine, tuple(trials), open_to.left_out)


def _has_one_label(source: ModelSource) -> bool:
    """Say whether each sample has one right label: the task's labels, one of them at a time."""
    if source.task not in ("text-classification", "image-classification"):
        return False
    problem_type = source.section()["output"].get("problem_type")
    return default_function(problem_type, len(source.labels)) == "softmax"
