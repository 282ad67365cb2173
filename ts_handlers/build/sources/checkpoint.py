"""A Hugging Face folder -> its model, with every weight accounted for and none of the folder's own code run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ts_handlers.build.sources.model import ModelSource, read_json
from ts_handlers.errors import OperatorError, all_lines

MODEL_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "feature-extraction": "AutoModel",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "image-segmentation": "AutoModelForSemanticSegmentation",
}
"""Class of transformers that loads each task's checkpoint."""

_ENCODER_CLASS = "AutoModelForTextEncoding"
"""Class that loads the encoder alone of a model that has a decoder, too."""

_UNUSED_PARTS = ("pooler", "cls", "lm_head", "qa_outputs", "discriminator_predictions", "generator_predictions")
"""Parts of pre-training that checkpoints of other tasks keep."""

_SHOWN = 6
"""Weights that an error names."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: The model, in fp32, in eval mode, with eager attention.
        missing: Weights that the folder does not have: transformers made them up.
        unexpected: Weights of the folder that the model has no place for.
    """

    model: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_checkpoint(source: str, folder: Path, task: str) -> Checkpoint:
    """Load a folder's model with the head that the task needs.

    Raises:
        OperatorError: It cannot be read, needs code of its own, or holds an adapter.
    """
    if not (folder / "config.json").is_file():
        inside = [
            path.parent.name for path in folder.glob("*/config.json") if (path.parent / "tokenizer.json").is_file()
        ]
        where = f"; there is one in {inside[0]}: give {folder / inside[0]}" if len(inside) == 1 else ""
        raise OperatorError(
            f"{source} has no config.json{where or '; give a folder that save_pretrained wrote, or a hub id'}"
        )
    if (folder / "adapter_config.json").is_file():
        raise OperatorError(
            f"{source} holds an adapter (adapter_config.json); merge it into the model with peft's merge_and_unload, and "
            "save that"
        )
    transformers.utils.logging.disable_progress_bar()  # the build prints its own steps
    transformers.utils.logging.set_verbosity_error()  # missing weights are judged, not printed
    try:
        model, info = _model_class(folder, task).from_pretrained(
            folder,
            attn_implementation="eager",
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a checkpoint can be broken in as many ways as there are architectures
        raise cannot_load(source, folder, task, error) from error
    return Checkpoint(model.eval(), tuple(sorted(info["missing_keys"])), tuple(sorted(info["unexpected_keys"])))


def cannot_load(source: str, folder: Path, task: str, error: Exception) -> OperatorError:
    """Return what to say of a folder that transformers cannot load."""
    if "trust_remote_code" in str(error):
        return _needs_own_code(source, folder)
    if "weights_only" in str(error):  # torch's own text advises to run what is in the file
        return OperatorError(
            f"{source} holds objects beside its weights that can run code, so they are not read; save it with "
            "save_pretrained, which writes safetensors"
        )
    return OperatorError(f"{source} cannot be loaded for {task}: {all_lines(error)}")


def refuse_own_code(source: str, folder: Path, file: str, key: str) -> None:
    """Refuse a folder whose class is its own: transformers would take another in its place, without a word.

    Args:
        source: What the command line calls the folder.
        folder: The folder.
        file: Its file with an auto_map.
        key: Where that names the class.

    Raises:
        OperatorError: The class is none of transformers'.
    """
    settings = read_json(folder / file) if (folder / file).is_file() else {}
    name = str(settings.get(key) or "")
    if settings.get("auto_map") and name and not hasattr(transformers, name):
        raise _needs_own_code(source, folder)


def _needs_own_code(source: str, folder: Path) -> OperatorError:
    names = sorted({file.name for file in folder.glob("*.py")}) or ["auto_map in its configuration"]
    return OperatorError(
        f"{source} needs code of its own ({', '.join(names[:_SHOWN])}), and a build never runs a folder's code; convert the "
        "checkpoint to a class that transformers has, or serve it with a handler of your own"
    )


def account_for_weights(source: ModelSource, checkpoint: Checkpoint, name: str) -> None:
    """Refuse a checkpoint whose weights are not those of its model, to the last one.

    Raises:
        OperatorError: Answers depend on a weight that is missing (transformers makes it up at random), or the folder has
            weights that the model has no place for.
    """
    if checkpoint.missing and _are_used(source, checkpoint):
        architectures = ", ".join(checkpoint.model.config.architectures or []) or "no named architecture"
        beside = f", and has {_named(checkpoint.unexpected)} that it has no place for" if checkpoint.unexpected else ""
        raise OperatorError(
            f"{name} (it holds {architectures}) lacks weights of {type(checkpoint.model).__name__}: "
            f"{_named(checkpoint.missing)}{beside}; they would be random. Fine-tune it for {source.task} first, or save it "
            "under the names that transformers has"
        )
    model = checkpoint.model
    is_another = source.task == "feature-extraction" and type(model).__name__ not in (model.config.architectures or [])
    wrong = [key for key in checkpoint.unexpected if _is_wrong(model, key, None if is_another else _UNUSED_PARTS)]
    if wrong:
        raise OperatorError(
            f"{name} has weights that {type(model).__name__} has no place for: {_named(wrong)}; correct config.json, or "
            "save the model as it was trained"
        )


def _are_used(source: ModelSource, checkpoint: Checkpoint) -> bool:
    """Say whether the missing weights count, by the model: others are put in their place, and its outputs compared."""
    example = {key: tensor.numpy() for key, tensor in source.example().items()}
    before = source.run(example)
    _make_up(checkpoint.model, checkpoint.missing)
    after = source.run(example)
    return any((before[key] != after[key]).any() for key in before)


def _model_class(folder: Path, task: str) -> Any:
    """Return the class that loads a folder: of a model with a decoder that embeds texts, the encoder's."""
    name = MODEL_CLASSES[task]
    if task == "feature-extraction":
        names = read_json(folder / "config.json").get("architectures") or [""]
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if str(names[0]).endswith("EncoderModel") or getattr(config, "is_encoder_decoder", False):
            known = type(config) in transformers.AutoModelForTextEncoding._model_mapping  # noqa: SLF001  # no other way to ask
            name = _ENCODER_CLASS if known else name
    return getattr(transformers, name)


def _is_wrong(model: Any, name: str, allowed: Collection[str] | None) -> bool:
    """Say whether leaving out a weight changes the model.

    It does where it is of a part that exists; of parts that do not, those of other tasks' heads may be left out.

    Args:
        model: The model.
        name: The weight's name in the folder.
        allowed: Parts that may be left out; None: any.
    """
    base = f"{model.base_model_prefix}."
    names = name.removeprefix(base).split(".")
    base_model = getattr(model, model.base_model_prefix, model)
    part: Any = base_model if name.startswith(base) else model
    if any(key == name or name.endswith(f".{key}") for key, _ in model.named_buffers()):
        return False
    first = getattr(part, names[0], None) or getattr(base_model, names[0], None)
    if first is not None:
        return True
    return allowed is not None and names[0] not in allowed


def _make_up(model: Any, names: Iterable[str]) -> None:
    """Put other numbers in the place of some weights."""
    known = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in names:
            tensor = known.get(name)
            if tensor is not None and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)  # a variance must stay positive


def _named(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
