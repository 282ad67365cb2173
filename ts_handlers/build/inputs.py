"""What a build feeds its models, of texts or of images: the one place that tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ts_handlers.batch import ModelInput
from ts_handlers.build import check
from ts_handlers.build.image_samples import ImageDataset, max_samples, sample_image_inputs, sample_image_request
from ts_handlers.build.image_source import ImageSource
from ts_handlers.build.load_image_source import Given, load_image_source
from ts_handlers.build.model_source import ModelSource
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.samples import Dataset
from ts_handlers.build.source import Source, load_source
from ts_handlers.build.steps import Progress
from ts_handlers.build.texts.tokenizer import compare_tokenizers, note_other_file
from ts_handlers.build.verify import preprocessing
from ts_handlers.config import HandlerConfig
from ts_handlers.errors import OperatorError
from ts_handlers.reading import load_json
from ts_handlers.tasks import TASKS


def load(request: BuildRequest, work: Path, progress: Progress | None = None) -> ModelSource:
    """Read the source of a build.

    Args:
        request: What was asked for.
        work: Folder for what is made of it.
        progress: Called with what was found out about the source.

    Raises:
        OperatorError: It cannot be read, or does not serve the task.
    """
    if TASKS[request.task].instances == "image":
        given = Given(request.labels, request.preprocessor, request.model_file, request.handler is not None)
        source = load_image_source(request.source, request.task, given, work)
        if progress is not None:
            for note in source.notes:
                progress(f"  {note}")
        return source
    for option, value in (
        ("--labels", request.labels),
        ("--preprocessor", request.preprocessor),
        ("--model-file", request.model_file),
    ):
        if value is not None:
            raise OperatorError(
                f"{option} is for tasks of images; {request.task} takes a Hugging Face folder or hub id"
            )
    return load_source(request.source, request.task)


def check_preprocessing(source: ModelSource, progress: Progress) -> None:
    """Make sure that pictures become what the source was trained on; of texts say whose tokenizer is followed.

    Raises:
        OperatorError: They do not.
    """
    if isinstance(source, ImageSource):
        preprocessing.check_preprocessing(source, progress)
    elif isinstance(source, Source):
        note_other_file(source.tokenizer, source.folder, progress)


def check_tokenizer(source: ModelSource, files: Path, config: HandlerConfig) -> None:
    """Make sure that the archive's tokenizer is the source's.

    Raises:
        OperatorError: It is not.
    """
    if isinstance(source, Source):
        compare_tokenizers(
            source.tokenizer,
            files,
            config.tokenizer,
            pairs=source.task in ("text-classification", "question-answering"),
        )


def open_dataset(source: ModelSource, file: Path, *, is_judged: bool = False) -> Dataset:
    """Open a file of samples.

    Args:
        source: The model.
        file: Texts; images as a folder or a file of paths.
        is_judged: Whether all samples are held in memory, so that there may not be too many.
    """
    if isinstance(source, ImageSource):
        return ImageDataset(source, file, limit=max_samples(source) if is_judged else None)
    return Dataset(source, file)


def sample_inputs(source: ModelSource, file: Path | None, section: Mapping[str, Any]) -> list[ModelInput]:
    """Return what the build is checked on, by the archive's settings.

    Raises:
        OperatorError: The file cannot be read, or has no sample.
    """
    if isinstance(source, ImageSource):
        return sample_image_inputs(source, file)
    if not isinstance(source, Source):
        raise OperatorError(f"{type(source).__name__} has no samples; it is neither of texts nor of images")
    return check.sample_inputs(source, check.read_samples(file), max_length(source, section))


def sample_request(request: BuildRequest, source: ModelSource, section: Mapping[str, Any]) -> Any:
    """Return what the finished archive must answer; of texts a short one, which every model takes.

    Raises:
        OperatorError: --sample-request cannot be read.
    """
    if request.sample_request is not None:
        try:
            return load_json(request.sample_request)
        except (OSError, ValueError) as error:
            raise OperatorError(f"--sample-request {request.sample_request} cannot be read as JSON: {error}") from error
    if TASKS[request.task].instances == "image":
        return sample_image_request()
    if request.task == "question-answering":
        return {"question": check.SAMPLE_QUESTIONS[0], "context": check.SAMPLE_TEXTS[3]}
    text = check.SAMPLE_TEXTS[0]
    is_long = isinstance(source, Source) and len(source.tokenizer(text)["input_ids"]) > max_length(source, section)
    return min(check.SAMPLE_TEXTS, key=len) if is_long else text


def max_length(source: Source, section: Mapping[str, Any]) -> int:
    """Return the most tokens that the archive takes: the model's, or fewer where the command line says so."""
    return int(section.get("tokenizer", {}).get("max_length") or source.max_length)
