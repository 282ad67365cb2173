from __future__ import annotations

from pathlib import Path

import pytest

from tests.pictures import encode, scene
from tests.unit.build.image_forms import load, make_script
from ts_handlers.build.samples import Dataset
from ts_handlers.errors import OperatorError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of TorchScript


def test_datasets_of_images(given: Path) -> None:
    pictures = given / "pictures"
    (pictures / "more").mkdir(parents=True)
    for index in range(6):
        folder = pictures / "more" if index > 3 else pictures
        (folder / f"{index}.png").write_bytes(encode(scene(20, 30, index), "PNG"))
    (pictures / "notes.txt").write_text("no image")
    source = load(make_script(given), given)
    dataset = Dataset(source, pictures)
    assert len(dataset) == 6
    assert [item.arrays["pixel_values"].shape for item in dataset] == [(3, 16, 24)] * 6
    assert [item.source for item in dataset] == [(20, 30)] * 6
    kept, judged = dataset.split()
    assert (len(kept), len(judged)) == (4, 2)
    assert {sample.text for sample in kept.samples}.isdisjoint(sample.text for sample in judged.samples)
    assert len(dataset.digest) == 64
    assert len(dataset.spread(2)) == 2
    lines = given / "labelled.tsv"
    lines.write_text("green\tpictures/0.png\n2\tpictures/1.png\nred (3)\tpictures/more/4.png\n")
    assert Dataset(source, lines).labels == (1, 2, 3)
    with pytest.raises(OperatorError, match="has no label"):
        _ = dataset.labels


@pytest.mark.parametrize(
    ("text", "message"),
    [("red\tgone.png\n", "names gone.png, and there is no"), ("", "has no image; give a folder of them")],
)
def test_files_of_images_that_cannot_be_read(text: str, message: str, given: Path) -> None:
    (given / "lines.tsv").write_text(text)
    source = load(make_script(given), given)
    with pytest.raises(OperatorError, match=message):
        len(Dataset(source, given / "lines.tsv"))
    with pytest.raises(OperatorError, match=r"gone cannot be read"):
        len(Dataset(source, given / "gone"))
    (given / "broken.png").write_bytes(b"x")
    (given / "lines.tsv").write_text("broken.png\n")
    with pytest.raises(OperatorError, match="cannot be read as an image"):
        list(Dataset(source, given / "lines.tsv"))


def test_samples_in_memory_are_bounded_by_their_pixels(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(10):
        (given / f"{index}.png").write_bytes(encode(scene(20, 30, index), "PNG"))
    dataset = Dataset(load(make_script(given), given), given)
    assert len(dataset.in_memory()) == 10
    monkeypatch.setattr("ts_handlers.build.samples.MAX_PIXELS", 3 * 16 * 24)
    assert [Path(sample.text).name for sample in dataset.in_memory().samples] == ["0.png", "3.png", "6.png"]
