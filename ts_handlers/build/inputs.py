"""What a build feeds its models, of texts or of images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ts_handlers.batching.padding import ModelInput
from ts_handlers.build.image_outputs.made_pictures import sample_pictures
from ts_handlers.build.request import BuildRequest
from ts_handlers.build.samples import (
    MAX_LENGTH,
    SAMPLE_QUESTIONS,
    SAMPLE_TEXTS,
    Dataset,
    Sample,
    encode,
    encode_picture,
    read_samples,
)
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.sources.load_images import load_image_source
from ts_handlers.build.sources.model import ModelSource
from ts_handlers.build.sources.texts import load_source
from ts_handlers.build.steps import Progress
from ts_handlers.config.reading import load_json
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError
from ts_handlers.imaging.decoding import picture_from_pixels


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
        source: ModelSource = load_image_source(request, work)
    else:
        options = {
            "--labels": request.labels,
            "--preprocessor": request.preprocessor,
            "--model-file": request.model_file,
        }
        if given := [option for option, value in options.items() if value is not None]:
            raise OperatorError(
                f"{given[0]} is for tasks of images; {request.task} takes a Hugging Face folder or hub id"
            )
        source = load_source(request.source, request.task)
    if progress is not None:
        for note in source.notes:
            progress(f"  {note}")
    return source


def open_dataset(source: ModelSource, file: Path, *, is_judged: bool = False) -> Dataset:
    """Open a file of samples; where they are judged on, as many as may be held in memory."""
    dataset = Dataset(source, file)
    return dataset.in_memory() if is_judged else dataset


def sample_inputs(source: ModelSource, file: Path | None, section: Mapping[str, Any]) -> list[ModelInput]:
    """Return what the build is checked on: the samples of a file, or those that are built in.

    Args:
        source: The model.
        file: The file; None where none was given.
        section: `handler:` of the archive; texts are cut at its tokenizer.max_length.

    Raises:
        OperatorError: The file cannot be read, or has no sample.
    """
    if isinstance(source, ImageSource):
        if file is not None:
            return list(Dataset(source, file).in_memory())
        return [encode_picture(source, picture_from_pixels(pixels)) for pixels in sample_pictures()]
    texts = SAMPLE_TEXTS if file is None else [sample.text for sample in read_samples(source, file)]
    samples = [Sample(text) for text in texts]
    if source.task == "question-answering":
        samples = [Sample(" ".join(texts)[:2000], question) for question in SAMPLE_QUESTIONS]
    max_length = int(section.get("tokenizer", {}).get("max_length") or MAX_LENGTH)
    return [encode(source, sample, min(max_length, MAX_LENGTH)) for sample in samples]


def sample_request(request: BuildRequest) -> Any:
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
        target = io.BytesIO()
        Image.fromarray(sample_pictures()[0]).save(target, "PNG")
        return {"b64": base64.b64encode(target.getvalue()).decode("ascii")}
    if request.task == "question-answering":
        return {"question": SAMPLE_QUESTIONS[0], "context": SAMPLE_TEXTS[3]}
    return min(SAMPLE_TEXTS, key=len)
