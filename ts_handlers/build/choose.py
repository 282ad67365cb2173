"""From a request to one engine: made at once, or, where there is data for the gate, measured and chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ts_handlers.batching.calls import ModelCalls
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.gate import Reference
from ts_handlers.build.inputs import open_dataset
from ts_handlers.build.methods.catalogue import candidates, find_method
from ts_handlers.build.reference import SourceSession, make_reference
from ts_handlers.build.request import AUTO, BuildRequest
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sections import handler_section
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.steps import step
from ts_handlers.build.target import is_here
from ts_handlers.build.trial import Trial, Trials, fastest, trial_table
from ts_handlers.config.sections import BucketingConfig, load_config
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget, cpu_budget, cpu_share
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
    left_out: Mapping[str, str] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return what the build report says of the choice."""
        if not self.trials:
            return {}
        return {"trials": [trial.as_dict() for trial in self.trials], "left_out": dict(self.left_out)}


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
    baseline = find_method("onnx", "fp32", None)  # what was asked for is seen beside it
    methods = open_to.methods if baseline in open_to.methods else (*open_to.methods, baseline)
    trials = Trials(material, reference, request.limits, opener, engines).run(methods)
    try:
        best = fastest([trial for trial in trials if trial.method in open_to.methods])
    except OperatorError:
        material.progress(trial_table(trials))
        raise
    faster = [trial for trial in trials if trial is not best and not trial.failures and _ms(trial) <= _ms(best)]
    fp32 = next((trial for trial in faster if trial.method == baseline), None)
    may_give_way = best.method.quantizer is not None and request.quantizer in (None, AUTO)
    if fp32 is not None and may_give_way and is_here(request.target_cpu):
        # INT8 would cost accuracy and gain nothing; who names the quantizer gets it all the same
        material.progress(
            f"{best.method.name} passes and is not faster than {baseline.name} on this machine: fp32 is built. Name "
            f"--quantizer {best.method.quantizer} to have it for its size"
        )
        best, faster = fp32, []
    material.progress(trial_table(trials, best))
    for trial in faster:
        material.progress(f"note: {best.method.name} is not faster than {trial.method.name} on this machine")
    if best.engine is None:
        raise OperatorError(f"{best.method.name} was not made")
    return Chosen(best.method, best.engine, tuple(trials), open_to.left_out)


def _ms(trial: Trial) -> float:
    return trial.latency.ms_per_sample if trial.latency is not None else float("inf")


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


def _has_one_label(source: ModelSource) -> bool:
    """Say whether each sample has one right label: the task's labels, one of them at a time."""
    if source.task not in ("text-classification", "image-classification"):
        return False
    problem_type = source.section()["output"].get("problem_type")
    return default_function(problem_type, len(source.labels)) == "softmax"
