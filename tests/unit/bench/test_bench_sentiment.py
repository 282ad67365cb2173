from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench import sentiment
from bench.material import LABELS, Rated
from bench.sentiment import Labelled, batches, fine_tune, make_sentiment, split_rated, write_labelled

SENTENCES = [
    Rated(f"{'good' if number % 2 else 'bad'} number {number}", 1.0 if number % 2 else -1.0) for number in range(40)
]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_no_sentence_is_for_two_purposes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentiment, "NUM_EVALUATION", 10)
    monkeypatch.setattr(sentiment, "NUM_TRAINING", 20)
    split = split_rated(SENTENCES * 2)
    training, evaluation = ({text for text, _ in part} for part in (split.training, split.evaluation))
    assert (len(training), len(evaluation)) == (20, 10)
    assert not training & evaluation
    assert split == split_rated(SENTENCES)


def test_labels_follow_the_rating_and_what_is_hardly_either_is_left_out() -> None:
    rated = [
        Rated("so\tso", 0.0),
        Rated("fair", 0.4),
        Rated("fine\u0085 day", 0.5),
        Rated("rain", -3.0),
        Rated("rain", 2.0),
    ]
    assert sorted(split_rated(rated).evaluation) == [Labelled("fine day", 1), Labelled("rain", 0)]


def test_files_have_one_sentence_a_line_with_its_label(tmp_path: Path) -> None:
    write_labelled(tmp_path / "file", [Labelled("rain", 0), Labelled("sun", 1)])
    assert (tmp_path / "file").read_text() == "negative\train\npositive\tsun\n"


def test_batches_have_sentences_of_about_one_length_and_each_once() -> None:
    sentences = [Labelled("x" * (number * 37 % 100), 0) for number in range(90)]
    divided = batches(sentences, size=8)
    assert sorted(text for batch in divided for text, _ in batch) == sorted(text for text, _ in sentences)
    assert max(len(batch[-1].text) - len(batch[0].text) for batch in divided) <= 10
    lengths = [len(batch[0].text) for batch in divided]
    assert lengths != sorted(lengths)


def test_training_is_reproducible_and_what_it_writes_is_a_checkpoint(tmp_path: Path) -> None:
    data = [Labelled(rated.text, int(rated.rating > 0)) for rated in SENTENCES]
    for name in ("first", "second"):
        fine_tune(data, tmp_path / name)
    first, second = (
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / n) for n in ("first", "second")
    )
    for (name, mine), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    assert list(first.config.id2label.values()) == list(LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "first")
    with torch.inference_mode():
        logits = first.eval()(**tokenizer(["a text"], return_tensors="pt")).logits
    assert np.isfinite(logits.numpy()).all()
    assert json.loads((tmp_path / "first" / "config.json").read_text())["architectures"] == [type(first).__name__]
    assert not torch.are_deterministic_algorithms_enabled()


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def train(sentences: list[Labelled], folder: Path) -> None:
        trained.append(len(sentences))
        folder.mkdir()

    monkeypatch.setattr(sentiment, "download_sdist", lambda folder: folder)
    monkeypatch.setattr(sentiment, "read_rated", lambda _: SENTENCES)
    monkeypatch.setattr(sentiment, "fine_tune", train)
    monkeypatch.setattr(sentiment, "NUM_EVALUATION", 10)
    found = make_sentiment(tmp_path)
    assert make_sentiment(tmp_path) == found
    assert trained == [30]
    assert len(found.evaluation.read_text().splitlines()) == 10
    assert len(found.calibration.read_text().splitlines()) == 30
