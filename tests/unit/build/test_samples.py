"""Files of samples."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ts_handlers.build.samples import MAX_LENGTH, Dataset, Sample
from ts_handlers.build.sources.texts import Source, load_source
from ts_handlers.errors import OperatorError

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs


@pytest.fixture(scope="module")
def source(model_dirs: ModelDirs) -> Source:
    return load_source(str(model_dirs.checkpoint("tiny-distilbert")), "text-classification")


@pytest.fixture(scope="module")
def answering(model_dirs: ModelDirs) -> Source:
    return load_source(str(model_dirs.checkpoint("tiny-roberta-answers")), "question-answering")


def write(folder: Path, *lines: str) -> Path:
    file = folder / "samples.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_line_is_a_sample_and_empty_lines_are_none(source: Source, tmp_path: Path) -> None:
    dataset = Dataset(source, write(tmp_path, "one", "", "  ", "two words\r", "three"))
    assert list(dataset.samples) == [Sample("one"), Sample("two words"), Sample("three")]
    assert len(dataset) == 3
    expected = source.tokenizer("two words")["input_ids"]
    assert list(dataset)[1].arrays["input_ids"].tolist() == expected
    assert list(dataset)[1].length == len(expected)


def test_labels_are_names_or_indices(source: Source, tmp_path: Path) -> None:
    first, second = source.labels[:2]
    dataset = Dataset(source, write(tmp_path, f"{second}\ta text", "0\tanother\twith a tab", f"{first}\tmore"))
    assert dataset.labels == (1, 0, 0)
    assert [sample.text for sample in dataset.samples] == ["a text", "another\twith a tab", "more"]


@pytest.mark.parametrize(
    ("line", "message"),
    [("no label", "sample 2 has no label; write label<TAB>text"), ("99\ttext", "sample 2 has the label '99'; known: ")],
)
def test_a_label_that_is_none_is_said_with_its_line(source: Source, tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        _ = Dataset(source, write(tmp_path, "0\ttext", line)).labels


def test_a_question_comes_with_its_context(answering: Source, tmp_path: Path) -> None:
    [item] = Dataset(answering, write(tmp_path, "who?\tit was me"))
    assert item.arrays["input_ids"].tolist() == answering.tokenizer("who?", "it was me")["input_ids"]


def test_long_texts_are_cut(source: Source, tmp_path: Path) -> None:
    [item] = Dataset(source, write(tmp_path, "word " * 1000))
    assert item.length == min(source.max_length, MAX_LENGTH)


def test_a_split_is_whole_and_disjoint(source: Source, tmp_path: Path) -> None:
    dataset = Dataset(source, write(tmp_path, *map(str, range(12))))
    calibration, evaluation = dataset.split()
    assert [sample.text for sample in evaluation.samples] == ["0", "5", "10"]
    both = {sample.text for sample in calibration.samples} | {sample.text for sample in evaluation.samples}
    assert len(calibration) + len(evaluation) == len(both) == 12


@pytest.mark.parametrize("number", [1, 5, 12, 40])
def test_a_spread_reaches_over_the_file(source: Source, tmp_path: Path, number: int) -> None:
    dataset = Dataset(source, write(tmp_path, *(" ".join("a" * (1 + index)) for index in range(12))))
    lengths = [item.length for item in dataset.spread(number)]
    assert len(lengths) == min(number, 12)
    assert lengths == sorted(set(lengths))


def test_the_digest_is_the_files(source: Source, tmp_path: Path) -> None:
    file = write(tmp_path, "a", "b")
    assert Dataset(source, file).digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_files_without_samples_are_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="has no text; give one a line"):
        Dataset(source, write(tmp_path, "", " "))
    with pytest.raises(OperatorError, match="cannot be read"):
        Dataset(source, tmp_path / "missing.txt")
    (tmp_path / "broken.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(OperatorError, match="cannot be read as UTF-8 text"):
        Dataset(source, tmp_path / "broken.txt")
