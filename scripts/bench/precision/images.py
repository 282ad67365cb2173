"""The image models: EfficientNet-Lite0, judged by its agreement with the source, and ResNet-152, whose speed counts."""

from __future__ import annotations

import torch

from bench.efficientnet import NUM_LABELS, efficientnet_lite0, model_input, resnet_152
from bench.photographs import Pictures, load_photographs, make_pictures
from bench.precision.image_methods import STATIC, ImageMaterial, image_methods
from bench.precision.measured import Aim, Measured
from bench.precision.trying import Plan, guarded_opener
from ts_handlers.build.engine import Engine
from ts_handlers.build.gate import Answers, Limits, Reference
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.sources.texts import Source
from ts_handlers.build.steps import step
from ts_handlers.build.target import NATIVE, target_cpu
from ts_handlers.build.trial import Trials
from ts_handlers.calls import ModelCalls
from ts_handlers.config import BucketingConfig, load_config
from ts_handlers.cpu import CpuBudget, cpu_share
from ts_handlers.runtime import ModelFiles, Session, open_session

EFFICIENTNET = "efficientnet"
RESNET = "resnet"

_NUM_CALIBRATION = 100
_NUM_EVALUATION = 300
_FEW = 16
"""Pictures of the model whose speed alone counts."""

_EFFICIENTNET_ABOUT = (
    "EfficientNet-Lite0 (4.7 million parameters) with its published ImageNet weights. {evaluation} crops of the right "
    "halves of {photographs} photographs, some mirrored, darker or brighter; calibrated on {calibration} of the left ones. "
    "Agreement is of the best label, the cosine of the 1,000 scores."
)
_RESNET_ABOUT = (
    "ResNet-152 (60 million parameters) at random weights, batch normalization fitted to pictures: its times are right, its "
    "answers mean nothing. {evaluation} pictures, calibrated on {calibration} others."
)


def measure_efficientnet(plan: Plan) -> Measured:
    """Try all methods on EfficientNet-Lite0."""
    photographs = load_photographs()
    pictures = make_pictures(photographs, _NUM_CALIBRATION, min(plan.num_samples, _NUM_EVALUATION))
    about = _EFFICIENTNET_ABOUT.format(
        evaluation=len(pictures.evaluation),
        calibration=len(pictures.calibration),
        photographs=len(photographs),
    )
    return _measure(EFFICIENTNET, "EfficientNet-Lite0, by agreement", about, efficientnet_lite0(), pictures, plan)


def measure_resnet(plan: Plan) -> Measured:
    """Try all methods on ResNet-152."""
    pictures = make_pictures(load_photographs(), _FEW, min(plan.num_samples, _FEW))
    about = _RESNET_ABOUT.format(evaluation=len(pictures.evaluation), calibration=len(pictures.calibration))
    aim = Aim(3.0, quantizers=frozenset(f"static-{method}" for method in STATIC))
    return _measure(RESNET, "ResNet-152, by speed", about, resnet_152(pictures.calibration), pictures, plan, aim)


def _measure(
    name: str, title: str, about: str, network: torch.nn.Module, pictures: Pictures, plan: Plan, aim: Aim | None = None
) -> Measured:
    print(f"\n{title}", flush=True)
    work, engines = plan.folders(name)
    # A picture has one label, as a text has: what a text's classifier is judged by holds for it, too.
    source = Source(
        folder=work,
        task="text-classification",
        model=network,
        labels=_labels(),
        input_names=("pixel_values",),
        digest="",
        tokenizer=None,
        max_length=0,
    )
    material = ImageMaterial(source, work, target_cpu(NATIVE))
    inputs = [model_input(picture) for picture in pictures.evaluation]
    answers = Answers(source.task, {}, len(source.labels))
    with step(print, f"run the source on {len(inputs)} pictures"):
        reference = Reference(answers, inputs, SourceSession(source), _calls())
    methods, left_out = plan.choose(image_methods(pictures.calibration))
    trials = Trials(material, reference, Limits(), guarded_opener(_open), engines, keeps_failed=True).run(methods)
    return Measured(name, title, about, trials, left_out, aim, is_text=False)


def _open(engine: Engine) -> tuple[Session, ModelCalls]:
    config = load_config({"handler": {"runtime": engine.runtime}})
    torch.set_num_threads(1)
    files = ModelFiles(engine.serialized_file.parent, engine.serialized_file.name)
    return open_session(config.runtime, files, cpu_share(CpuBudget((0,)), 1, threads=1)), _calls()


def _calls() -> ModelCalls:
    return ModelCalls(BucketingConfig(), {}, ())


def _labels() -> tuple[str, ...]:
    return tuple(f"class_{index}" for index in range(NUM_LABELS))
